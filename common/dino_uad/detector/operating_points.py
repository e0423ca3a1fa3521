"""The operating points that every fitted detector keeps a threshold for."""

FALSE_POSITIVE_RATES = (0.10, 0.05, 0.01, 0.005, 0.001)
"""Shares of the foreground of normal validation images, from the most to the least sensitive threshold."""

FREE_RESPONSE = {"1 finding in 10 scans": 0.1, "1 finding in 4 scans": 0.25}
"""Points with at most so many false findings a normal scan, so that most of their label maps are empty, by name."""

DEFAULT_POINT = "1 finding in 4 scans"
"""The point of label maps where none is chosen; the first choice in every ``inference.json``."""
