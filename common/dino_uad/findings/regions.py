"""Connected components of an anomaly map, seeded at one threshold and grown to a lower one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def components(scores: NDArray, threshold: float, grow: float | None = None) -> tuple[NDArray[np.integer], int]:
    """Number the connected places where ``scores`` reach ``threshold`` (8-connected in 2-D, 26-connected in 3-D).

    With ``grow`` each place extends over all connected scores of at least that (hysteresis thresholding, Canny 1986,
    sec. V): ``threshold`` says how many findings there are, ``grow`` how far they reach. Places that grow into each
    other become one.

    Args:
        scores: map of any shape.
        threshold: a place needs one score of at least this.
        grow: smallest score of what belongs to it; ``threshold`` when None.

    Returns:
        labels like ``scores``, int16 or, where there are many, int32; 0 outside and from 1 in scan order; and how many
        there are.

    Raises:
        ValueError: ``grow`` is above ``threshold``.
    """
    low = threshold if grow is None else grow
    if low > threshold:
        raise ValueError(f"findings grow down to a score: found {grow:g} above the threshold {threshold:g}")
    marked, structure = scores >= low, np.ones((3,) * scores.ndim)
    try:
        labels, count = ndimage.label(marked, structure, output=np.int16)
    except RuntimeError:  # more places than 16 bits number
        labels, count = ndimage.label(marked, structure, output=np.int32)
    del marked
    if low == threshold or count == 0:
        return labels, count
    seeded = np.zeros(count + 1, dtype=bool)
    for plane, values in zip(labels, scores, strict=True):
        seeded[plane[values >= threshold]] = True
    numbers = np.where(seeded, np.cumsum(seeded), 0).astype(labels.dtype)
    return renumber(labels, numbers), int(seeded.sum())


def renumber(labels: NDArray[np.integer], numbers: NDArray[np.integer]) -> NDArray[np.integer]:
    """Give every label ``k`` the number ``numbers[k]``, in place, a plane at a time: a volume fits only once."""
    for plane in labels:
        plane[...] = numbers[plane]
    return labels
