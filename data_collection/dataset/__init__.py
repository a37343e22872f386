"""Tools for folders of recorded episodes: `safe-policy dataset ...`."""
