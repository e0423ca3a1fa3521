"""Bounds from a few directions: the coarse products where a processor multiplies nothing faster than float32.

With an orthonormal ``V`` of few columns, ``q·b ≤ (Vᵀq)·(Vᵀb) + |q − VVᵀq| |b − VVᵀb|`` (Cauchy and Schwarz, of what
``V`` leaves): the product of the two vectors ``(Vᵀx, |x − VVᵀx|)``, of length 1 as those that they come from.
Embeddings of normal tissue vary along few directions, so this excludes nearly all rows; noise it does not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.heads.anomaly_dino.first_pass import SLAB, Bounds, FirstPass, unit
from dino_uad.products import linear

CHANNELS = 96  # from here on there are enough
_SHARE = 1 / 3  # of the channels, as directions
_WORTH = 250  # multiplications of a scan for each one of finding the directions, from which on it is worth it
_SAMPLE = 2048  # rows from which the directions come, and by which it is judged what they exclude
_JUDGED = 128  # queries
_MOST = 0.04  # rows of the sample that are not excluded; of a whole bank, whose rows are nearer, it is a tenth
_ROUNDING = 2e-5  # of float32 products, and of V


class FoldedPass(FirstPass):
    """Float32 products along ``directions`` ``[c,C]``."""

    def __init__(self, queries: Tensor, directions: Tensor) -> None:
        self._directions = directions
        self._transposed = fold(queries, directions).T.contiguous()
        self._error = torch.full((len(queries),), _ROUNDING)
        self.slab = 2 * SLAB
        self._product = torch.empty(self.slab, len(queries))

    def bounds(self, rows: Tensor) -> Bounds:
        folded = fold(rows, self._directions)
        return Bounds(torch.mm(folded, self._transposed, out=self._product[: len(rows)]), 1.0, self._error)


def fold(vectors: Tensor, directions: Tensor) -> Tensor:
    """``[n,c]`` of unit vectors ``[n,C]``: what they are along the directions, and the length of the rest."""
    folded = linear(vectors, directions)
    # Of a small difference the root is uncertain; this much more makes it not too small.
    folded[:, -1] = (1 - folded.square().sum(dim=1)).clamp_min_(0).add_(1e-6).sqrt_()
    return folded


def suiting(queries: Tensor, bank: Tensor) -> Tensor | None:
    """The :func:`directions` of a bank, where a search along them excludes nearly all rows; None where it does not."""
    if len(queries) * len(bank) < _WORTH * bank.shape[1] ** 2:
        return None
    rows = unit(_some(bank, _SAMPLE))[0]
    found = directions(rows)
    return found if _excludes_most(queries, rows, found) else None


def directions(rows: Tensor, count: int | None = None) -> Tensor:
    """``[c,C]`` in which rows ``[M,C]`` are longest, by their second moments; the last is zero, for the rest.

    Args:
        rows: float32, of at least ``CHANNELS`` channels if there is no count.
        count: ``c``; by default about a third of the channels, a multiple of 32, which products are fast with.
    """
    wanted = count or int(rows.shape[1] * _SHARE) // 32 * 32
    kept = torch.linalg.eigh(rows.T @ rows).eigenvectors.T.flip(0)[:wanted]
    kept[-1] = 0
    return kept.contiguous()


def _excludes_most(queries: Tensor, rows: Tensor, directions: Tensor) -> bool:
    """Whether the bounds exclude nearly all unit rows for a sample of the queries."""
    queries = functional.normalize(_some(queries, _JUDGED).float(), dim=1)
    best = (queries @ rows.T).amax(dim=1)
    left = fold(queries, directions) @ fold(rows, directions).T >= best[:, None]
    return bool(left.float().mean() < _MOST)


def _some(rows: Tensor, count: int) -> Tensor:
    """About ``count`` rows, evenly spaced."""
    return rows[:: max(len(rows) // count, 1)]
