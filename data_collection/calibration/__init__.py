"""Where the camera is and what it sees: hand-eye calibration, and a page with the live picture, crop and colours."""
