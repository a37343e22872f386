"""What must be right before a real arm moves: one small function a check, each with what to do when it is red."""
