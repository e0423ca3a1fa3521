"""Which images to show, chosen while they stream by: the best, the worst and the one in the middle."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dino_uad.settings import require_count

MAX_SIDE = 512
"""Longest side of a kept map in pixels; more is not visible on a page."""


@dataclass(frozen=True)
class Case:
    """One evaluated image, or the slices of one volume along the last axis.

    Attributes:
        name: shown to the reader.
        image: ``[C,H,W]`` or ``[C,H,W,D]`` half precision in [0, 1], an image at the network's size.
        anomaly_map: ``[h,w]`` or ``[h,w,D]`` half precision.
        label: bool, of the size of ``anomaly_map``; None where the mask is unknown.
        numbers: what the caption says, name to value.
        spacing: millimetres per row, column and slice of ``anomaly_map``; None where the file does not say.
        first_slice: number in its file, from 1, of a volume's first slice here.
        stride: step in these numbers from one slice to the next; negative where the file counts the other way.
    """

    name: str
    image: Tensor
    anomaly_map: Tensor
    label: Tensor | None
    numbers: dict[str, float]
    spacing: tuple[float, float, float] | None = None
    first_slice: int = 1
    stride: int = 1


class CaseSketch:
    """Keeps at most ``capacity`` of the cases it is given: both extremes, the others evenly spread over the ranks.

    The keys of all cases are kept (one float each), their images are not: which case is in the middle is known only at
    the end. Whenever there is one too many, the inner one goes whose neighbours are closest in rank, so that the median
    is off by about ``1 / capacity`` of the cases; nothing is random.

    Args:
        capacity: cases kept in memory.
        extremes: how many at either end are never dropped.
    """

    def __init__(self, capacity: int = 24, extremes: int = 2) -> None:
        require_count("extremes", extremes, 0)
        require_count("capacity", capacity, 2 * extremes + 1)
        self.capacity, self.extremes = capacity, extremes
        self.keys: list[float] = []
        self._kept: list[tuple[float, int, Any]] = []

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, key: float, case: Any) -> None:
        """Offer one case."""
        insort(self.keys, key)
        # Cases do not compare: ties are broken by the order of arrival.
        insort(self._kept, (key, len(self.keys), case))
        if len(self._kept) > self.capacity:
            self._drop_one()

    def merge(self, other: CaseSketch) -> None:
        """Add what another process kept, and the keys of what it saw."""
        for key, _, case in other._kept:
            self.add(key, case)
        kept = [key for key, _, _ in other._kept]
        for key in other.keys:
            if kept and key == kept[0]:
                kept.pop(0)
            else:
                insort(self.keys, key)

    def highest(self, number: int) -> list[Any]:
        """The cases of largest key, largest first."""
        return [case for _, _, case in self._kept[::-1][: min(number, self.extremes)]]

    def lowest(self, number: int) -> list[Any]:
        """The cases of smallest key, smallest first."""
        return [case for _, _, case in self._kept[: min(number, self.extremes)]]

    def median(self) -> Any | None:
        """The kept case whose key is nearest to the median key."""
        if not self._kept:
            return None
        middle = self.keys[len(self.keys) // 2]
        return min(self._kept, key=lambda entry: abs(entry[0] - middle))[2]

    def _drop_one(self) -> None:
        rank = [bisect_left(self.keys, key) for key, _, _ in self._kept]
        inner = range(self.extremes, len(self._kept) - self.extremes)
        del self._kept[min(inner, key=lambda i: rank[i + 1] - rank[i - 1])]


def shrink(tensor: Tensor, side: int = MAX_SIDE) -> Tensor:
    """Bring ``[C,h,w]`` to at most ``side`` pixels by averaging; smaller ones are returned as they are."""
    factor = side / max(tensor.shape[-2:])
    if factor >= 1:
        return tensor
    size = [max(1, round(length * factor)) for length in tensor.shape[-2:]]
    return F.interpolate(tensor[None].float(), size, mode="area")[0]


def best_median_worst(sketch: CaseSketch, number: int) -> list[tuple[str, Any]]:
    """Up to ``2 * number + 1`` distinct cases with what they are, from the best to the worst."""
    found = {"Best": sketch.highest(number), "Worst": sketch.lowest(number)[::-1]}
    found["Median"] = [sketch.median()] if len(sketch) else []
    shown: list[Any] = []
    for kind, cases in found.items():
        found[kind] = [case for case in cases if not any(case is other for other in shown)]
        shown += found[kind]
    return [(kind, case) for kind in ("Best", "Median", "Worst") for case in found[kind]]
