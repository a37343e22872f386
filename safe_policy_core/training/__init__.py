"""Training loops: offline on recorded episodes, online between episodes."""
