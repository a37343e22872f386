"""Makers of datasets: DSRL-format files from demonstrators of many styles, and FOSP's behaviours as episode files."""
