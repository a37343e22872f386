"""The methods, one folder each, found by name through `registry`."""
