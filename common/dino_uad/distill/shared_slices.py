"""Slices that are divided over the ranks: each reads and holds those of its files, and all see those of a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from dino_uad import parallel
from dino_uad.describe import describe
from dino_uad.digests import digest_facts


class SharedSlices:
    """The slices of all ranks' files, numbered in the order of the files, whichever rank holds them.

    Every rank makes one, and calls its methods in the same order with the same numbers.

    Args:
        files: slices ``[1|3,S,S]`` uint8 of each file of this rank's :func:`~dino_uad.parallel.share`.
        side: ``S``.
        device: where they are.
    """

    def __init__(self, files: Sequence[Sequence[Tensor]], side: int, device: torch.device | str = "cpu") -> None:
        self._files = files
        self._mine = [one for slices in files for one in slices]
        held = parallel.join_shares([[(parallel.rank(), len(one)) for one in slices] for slices in files])
        self._holders = [rank for slices in held for rank, _ in slices]
        self._places = []  # of each slice among those of its holder
        seen: Counter[int] = Counter()
        for rank in self._holders:
            self._places.append(seen[rank])
            seen[rank] += 1
        channels = max((count for slices in held for _, count in slices), default=1)
        self._none = torch.zeros(0, channels, side, side, dtype=torch.uint8, device=device)

    def __len__(self) -> int:
        return len(self._holders)

    def take(self, numbers: Sequence[int]) -> list[Tensor]:
        """The slices of these numbers, which may repeat, on every rank; of several ranks in colour if one is."""
        if not parallel.is_distributed():
            return [self._mine[number] for number in numbers]
        own = [self._mine[self._places[n]] for n in numbers if self._holders[n] == parallel.rank()]
        shape = self._none.shape[1:]
        rows = torch.stack([one.expand(shape) for one in own]) if own else self._none
        ordered = sorted(range(len(numbers)), key=lambda position: self._holders[numbers[position]])
        found = dict(zip(ordered, parallel.gather_rows(rows), strict=True))
        return [found[position] for position in range(len(numbers))]

    def digest(self) -> str:
        """Of the values of all, in their order: the same on any number of ranks."""
        files = parallel.join_shares([describe(list(slices)) for slices in self._files])
        return digest_facts([one for slices in files for one in slices])
