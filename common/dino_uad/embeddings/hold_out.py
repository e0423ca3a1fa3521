"""Which slices are set aside for calibration when no validation images were given."""

from __future__ import annotations

import numpy as np


def hold_out(entries: np.ndarray, fraction: float) -> np.ndarray:
    """Choose slices to set aside, without chance, so that a repeated fit sees the same split.

    The last entries are set aside whole: neighbouring slices of one scan are too alike to tell how unseen scans score.
    Only where a single entry is all there is, single slices of it, evenly spread, have to do.

    Args:
        entries: ``[n]`` for each slice the entry of the data list that it comes from, in their order.
        fraction: share of the entries to set aside, in [0, 1); at least one if it is above 0.

    Returns:
        ``[n]`` bool: True for the slices set aside.

    Raises:
        ValueError: there is a single slice, and so nothing to set aside.
    """
    if fraction == 0:
        return np.zeros(len(entries), dtype=bool)
    different = np.unique(entries)
    if len(different) > 1:
        return np.isin(entries, different[-max(1, int(fraction * len(different))) :])
    if len(entries) > 1:
        step = max(2, round(1 / fraction))
        return np.arange(len(entries)) % step == min(step // 2, len(entries) - 1)
    raise ValueError(
        f"{len(entries)} normal slice found, and no validation images: nothing is left to calibrate thresholds on. "
        "Add normal images (in MONAI Label: mark more images as final)"
    )
