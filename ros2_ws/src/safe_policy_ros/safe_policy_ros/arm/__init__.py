"""Arms behind one protocol: `franky` (libfranka: a real FR3 or the FCI simulator) and `fake` (kinematic)."""
