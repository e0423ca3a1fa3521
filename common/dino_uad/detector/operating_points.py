"""The false positive rates at which every fitted detector keeps a threshold."""

FALSE_POSITIVE_RATES = (0.10, 0.05, 0.01)
"""Shares of the pixels of normal validation images, from the most to the least sensitive threshold."""
