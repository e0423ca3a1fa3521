"""The operating points that every fitted detector keeps a threshold for."""

FALSE_POSITIVE_RATES = (0.10, 0.05, 0.01, 0.005, 0.001)
"""Shares of the foreground of normal validation images, from the most to the least sensitive threshold."""

FREE_RESPONSE = "1 finding in 10 scans"
"""The threshold with at most one false finding in 10 normal scans, so that most of their label maps are empty."""
