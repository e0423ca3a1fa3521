"""Percentiles of a volume that is too large to be copied."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 20  # values
SIGN, HALF, LOW = np.uint32(1 << 31), np.uint32(16), np.uint32(0xFFFF)


def percentile(values: NDArray[np.float32], percent: float, skip_zeros: bool = False) -> float:
    """Percentile of the values, linear between the two nearest, exact, in constant extra memory.

    Args:
        values: float32 of any shape, finite.
        percent: 0 to 100.
        skip_zeros: whether only values count that are not 0, of which there must be one.
    """
    flat = values.ravel(order="K")  # no copy, whatever the order of its axes
    coarse = np.zeros(1 << 16, np.int64)
    for keys in _ordered(flat, skip_zeros):
        coarse += np.bincount(keys >> HALF, minlength=1 << 16)
    rank = percent / 100 * (int(coarse.sum()) - 1)
    below = int(rank)
    lower = _ranked(flat, below, coarse, skip_zeros)
    if rank == below:
        return lower
    return lower + (rank - below) * (_ranked(flat, below + 1, coarse, skip_zeros) - lower)


def _ordered(flat: NDArray[np.float32], skip_zeros: bool) -> Iterator[NDArray[np.uint32]]:
    """The bits of the values, chunk by chunk, turned so that they sort as the numbers do."""
    for start in range(0, len(flat), CHUNK):
        chunk = flat[start : start + CHUNK]
        bits = (chunk[chunk != 0] if skip_zeros else chunk).view(np.uint32)
        yield np.where(bits & SIGN, ~bits, bits | SIGN)


def _ranked(flat: NDArray[np.float32], rank: int, coarse: NDArray[np.int64], skip_zeros: bool) -> float:
    """The value of a rank, counted from 0: its upper bits by ``coarse`` counts, its lower ones by counting again."""
    upper = int(np.searchsorted(np.cumsum(coarse), rank, side="right"))
    fine = np.zeros(1 << 16, np.int64)
    for keys in _ordered(flat, skip_zeros):
        fine += np.bincount(keys[keys >> HALF == upper] & LOW, minlength=1 << 16)
    lower = int(np.searchsorted(np.cumsum(fine), rank - int(coarse[:upper].sum()), side="right"))
    key = np.uint32(upper << 16 | lower)
    return float((key ^ SIGN if key & SIGN else ~key).reshape(1).view(np.float32)[0])
