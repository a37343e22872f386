"""Makers of DSRL-format datasets: demonstrators of many degrees of skill, caution and noise, one file a task."""
