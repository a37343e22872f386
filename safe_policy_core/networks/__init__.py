"""Building blocks shared by the methods. One part per module; nothing here knows a method."""
