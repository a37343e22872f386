"""Experiments that compare methods, `make experiments EXP=NAME`. They resume where they stopped."""
