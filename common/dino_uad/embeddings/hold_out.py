"""Which slices are set aside for calibration when no validation images were given."""

from __future__ import annotations

from collections.abc import Sequence

Slice = tuple[int, int]
"""(entry of the data list, slice of it)."""


def hold_out(slices: Sequence[Slice], fraction: float) -> tuple[list[Slice], list[Slice]]:
    """Split slices into (kept, set aside), without chance, so that a repeated fit sees the same split.

    The last entries are set aside whole: neighbouring slices of one scan are too alike to tell how unseen scans score.
    Only where a single entry is all there is, single slices of it, evenly spread, have to do.

    Args:
        slices: of all entries, in the order of the data list.
        fraction: share of the entries to set aside, in [0, 1); at least one if it is above 0.

    Raises:
        ValueError: there is a single slice, and so nothing to set aside.
    """
    if fraction == 0:
        return list(slices), []
    entries = sorted({entry for entry, _ in slices})
    if len(entries) > 1:
        aside = set(entries[-max(1, int(fraction * len(entries))) :])
        chosen = [entry in aside for entry, _ in slices]
    elif len(slices) > 1:
        step = max(2, round(1 / fraction))
        first = min(step // 2, len(slices) - 1)
        chosen = [position % step == first for position in range(len(slices))]
    else:
        raise ValueError(
            f"{len(slices)} normal slice found, and no validation images: nothing is left to calibrate thresholds on. "
            "Add normal images (in MONAI Label: mark more images as final)"
        )
    kept = [item for item, out in zip(slices, chosen, strict=True) if not out]
    return kept, [item for item, out in zip(slices, chosen, strict=True) if out]
