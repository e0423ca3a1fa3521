"""The normal images that a bank is made of, as they arrive."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dino_uad.heads.growing import GrowingRows


class Reference(NamedTuple):
    """One reference image."""

    key: float
    """Random number by which references are drawn; all views of one share it."""
    rows: Tensor | None
    """``[count,C]``; None on a rank that does not hold them."""
    count: int
    token: Tensor | None
    """Class token ``[C]``; None once the bank is made."""


class References:
    """Keeps the images of ``shots`` references of a stream, drawn from the seed; all when None.

    Fewer shots with the same seed are a subset of more: each reference has a random key, and the smallest are kept.

    Args:
        shots: number of references.
        views: consecutive images of the stream that show one reference.
        seed: of the keys.
    """

    def __init__(self, shots: int | None, views: int, seed: int) -> None:
        self.shots, self.views = shots, views
        self.kept: list[Reference] = []
        self._rows = GrowingRows()  # of all images, where none is forgotten
        self._generator = torch.Generator().manual_seed(seed)
        self._seen = 0
        self._key = 0.0

    def add(self, rows: Tensor | None, count: int, token: Tensor) -> None:
        """Add the next image, with its ``count`` rows (None if another rank holds them); drop one beyond ``shots``."""
        if self._seen % self.views == 0:
            self._key = torch.rand((), generator=self._generator, dtype=torch.float64).item()
        self._seen += 1
        if self.shots is None and rows is not None:
            self._rows.append(rows)
            rows = rows.new_empty(0, rows.shape[1])
        self.kept.append(Reference(self._key, rows, count, token))
        if self.shots is not None:
            keys = set(sorted({one.key for one in self.kept})[: self.shots])
            self.kept = [one for one in self.kept if one.key in keys]

    @property
    def row_count(self) -> int:
        """Number of rows of the images that are kept, on all ranks together."""
        return sum(one.count for one in self.kept)

    def join_rows(self, empty: Tensor) -> Tensor:
        """Return all rows of this rank, ``[M,C]`` like ``empty``, and drop them and the class tokens."""
        here = [one.rows for one in self.kept if one.rows is not None]
        self.kept = [one._replace(rows=None, token=None) for one in self.kept]
        return self._rows.take() if len(self._rows) else torch.cat([empty[:0], *here])
