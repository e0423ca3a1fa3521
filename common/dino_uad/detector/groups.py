"""Which of some scores, maps or slices belong together: to one patient, or one scan."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


def numbered(groups: Sequence[Hashable]) -> tuple[list[Hashable], Tensor]:
    """The different groups in the order of their first members, and the number of each member's, ``[n]`` int64."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return list(numbers), torch.tensor([numbers[group] for group in groups], dtype=torch.int64)


def members(groups: Sequence[Hashable]) -> dict[Hashable, Tensor]:
    """Group -> positions of its members, ascending; the groups in the order of their first members."""
    names, number = numbered(groups)
    places = number.argsort(stable=True).split(number.bincount(minlength=len(names)).tolist())
    return dict(zip(names, places, strict=True)) if names else {}
