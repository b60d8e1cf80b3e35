"""Intervals, simultaneous tests and statistics of texts, from numpy and scipy alone."""
