"""Watching episodes while they run, and recordings of them: in Rerun, or in Foxglove."""
