"""Nodes: they read parameters, convert messages and call the libraries."""
