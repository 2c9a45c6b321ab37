"""Soft targets at one T that a loss takes its sums from, a few classes at a time: a file a shape of row."""
