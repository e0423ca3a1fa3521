"""k-means++ (Arthur & Vassilvitskii, SODA 2007): rows that lie far apart, for methods that begin with some."""

from __future__ import annotations

import torch
from torch import Tensor

NOISE = 1e-6
"""Share of the largest squared norm below which a squared distance is rounding noise of its expanded form."""


def plus_plus(rows: Tensor, uniform: Tensor, mask: Tensor | None = None) -> Tensor:
    """Draw rows with probability proportional to their squared distance from the nearest one drawn before.

    The first is drawn uniformly, and so are the rest where the distinct rows run out. The random numbers are the same
    for every image, so that its rows do not depend on which others are in the batch.

    Args:
        rows: ``[B,P,C]``, less their mean: distances are differences of squares, which then keep their digits.
        uniform: ``[K]`` random numbers in [0, 1); K may exceed P.
        mask: ``[B,P]`` bool, the rows to draw from, at least one per image; all when None.

    Returns:
        ``[B,K]`` int64 indices of rows, on their device, for which the host does not wait.
    """
    norms = rows.square().sum(dim=2)
    counted = torch.ones_like(norms, dtype=torch.int64) if mask is None else mask.long()
    valid = norms if mask is None else norms.where(mask, 0)
    noise = NOISE * valid.amax(dim=1, keepdim=True)
    nearest, weights, chosen = torch.full_like(norms, torch.inf), counted, []
    for draw in uniform.tolist():
        if chosen:
            weights = _whole(torch.where(nearest > noise, nearest, 0)) * counted
            weights = torch.where(weights.any(dim=1, keepdim=True), weights, counted)
        total = weights.cumsum(dim=1)
        last = total[:, -1:].contiguous()
        index = torch.searchsorted(total, (draw * last.double()).long(), right=True)
        # The last row of weight above 0, should the product round to the total.
        index = index.minimum(torch.searchsorted(total, last))
        chosen.append(index)
        for image, norm, distance, i in zip(rows, norms, nearest, index, strict=True):
            drawn = image.index_select(0, i)[0]
            torch.minimum(distance, (norm + norm[i] - 2 * (image @ drawn)).clamp_min_(0), out=distance)
    return torch.cat(chosen, dim=1)


def _whole(weights: Tensor) -> Tensor:
    """Weights ``[B,P]`` in whole numbers, whose running sum a GPU takes in any order to the same result."""
    steps = 2.0 ** min(52, 62 - weights.shape[1].bit_length())  # the sum stays below 2**63
    largest = weights.amax(dim=1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return (weights.double() / largest.double() * steps).round_().long()
