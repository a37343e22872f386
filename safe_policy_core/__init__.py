"""Safe robot learning: methods, data, safety limits. Pure Python and torch; no ROS, simulator or clock."""

__version__ = "0.1.0"
