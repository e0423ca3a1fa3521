"""The operating points that every fitted detector keeps a threshold for."""

FALSE_POSITIVE_RATES = (0.10, 0.05, 0.01, 0.005, 0.001)
"""Shares of the foreground of normal validation images, from the most to the least sensitive threshold."""

DRAWN = FALSE_POSITIVE_RATES.index(0.05)
"""Place of the rate whose threshold is outlined in pictures."""

SCAN_RATES = (0.05, 0.01)
"""Shares of normal scans that may be flagged, of a scan as a whole by its p-value; the first is shown first."""

FREE_RESPONSE = {"1 finding in 10 scans": 0.1, "1 in 4 normal scans": 0.25}
"""Share of normal scans that may have any finding; what is promised of either is no more than that.

``1 finding in 10 scans`` counts every local maximum of the calibration scans' maps on the patch grid, about as many as
they have findings. Of new scans only the share that has any is bounded, not how many one of them has.
"""

BY_SCANS = frozenset({"1 in 4 normal scans"})
"""Points of :data:`FREE_RESPONSE` for which a calibration scan counts once, however many findings it has."""

DEFAULT_POINT = "1 in 4 normal scans"
"""The point of label maps where none is chosen; the first choice in every ``inference.json``."""


def flag_name(rate: float) -> str:
    """The column that says whether a scan is flagged at one of :data:`SCAN_RATES`, such as ``flagged_5``."""
    return f"flagged_{100 * rate:g}"
