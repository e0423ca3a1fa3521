"""The M step: a batch's sums blended into the running weights, means and covariances of the mixture.

Source: [DPMM] Schulthess & Konukoglu, MICCAI 2025. ``N``, ``D``, ``K``: :mod:`dino_uad.heads.dpmm.gaussian`.

Numerics: the statistics are kept as running means and covariances rather than running raw moments, so nothing is lost
to ``E[x²] − μ²`` and a decaying component keeps its shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dino_uad.heads.dpmm.expectation import Sums

# Below this count, products of responsibilities and squared embeddings underflow in float32: the component is empty.
EMPTY_COUNT = 1e-30

SCHEDULES: dict[str, Callable[[float, int], float]] = {
    "ema": lambda step_size, step: step_size,
    "exp": lambda step_size, step: (step + 1) ** -step_size,
}
"""Weight γ of the batch of each step, counted from 0, by the setting ``step_size``."""


class Moments(NamedTuple):
    """Running statistics: ``p̄``, ``m̄/p̄`` and ``c̄/p̄ − μμᵀ + reg`` in the notation of [DPMM]."""

    resp: Tensor  # [K]
    means: Tensor  # [K,D]
    covariances: Tensor  # [K,D] or [K,D,D]


def update_shares(resp: Tensor, counts: Tensor, n_rows: float, step_size: float) -> tuple[Tensor, Tensor]:
    """M step, shares: exponential averages of ``p̄`` ([DPMM], eq. 8) and how far each component's shape moves.

    Args:
        resp: running mean responsibilities ``p̄``, ``[K]`` float64.
        counts: sums of the whole batch's responsibilities, all ranks, ``[K]`` float64.
        n_rows: rows of the batch, all ranks.
        step_size: weight γ of this batch.

    Returns:
        ``p̄`` and, as the share of this batch in it, the gains, both ``[K]``; a component without rows has gain 0.
    """
    share = torch.where(counts < EMPTY_COUNT, 0, counts) / n_rows
    resp = (1 - step_size) * resp + step_size * share
    resp = torch.where(resp < torch.finfo(torch.float32).tiny, 0, resp)
    return resp, step_size * share / torch.where(resp > 0, resp, 1)


def update_shapes(
    moments: Moments, sums: Sums, center: Tensor, gain: Tensor, reg_covar: float, spherical: bool
) -> tuple[Tensor, Tensor]:
    """M step, shapes: blend a batch's means and covariances into the running ones.

    Equal to exponential averages of ``m̄`` and ``c̄`` ([DPMM], eq. 8) followed by ``μ = m̄/p̄`` and
    ``Σ = c̄/p̄ − μμᵀ`` (eq. 5), rewritten for means and covariances. Components without rows keep their shape.

    Args:
        moments: running statistics.
        sums: of the whole batch, all ranks.
        center: ``[K,D]``, what ``sums`` refer to.
        gain: of each component, ``[K]`` float64, from :func:`update_shares`.
        reg_covar: added to the variances.
        spherical: average the variances over the channels.
    """
    full = sums.second.ndim == 3
    divisor = torch.where(sums.counts < EMPTY_COUNT, 1, sums.counts).unsqueeze(1)
    offset = sums.first / divisor
    shift = center + offset - moments.means.double()
    if full:
        spread = sums.second / divisor.unsqueeze(2) - offset.unsqueeze(2) * offset.unsqueeze(1)
        spread.diagonal(dim1=1, dim2=2).clamp_min_(0).add_(reg_covar)
        between, blend = shift.unsqueeze(2) * shift.unsqueeze(1), gain[:, None, None]
    else:
        spread = torch.addcmul(sums.second / divisor, offset, offset, value=-1).clamp_min_(0).add_(reg_covar)
        between, blend = shift.square(), gain[:, None]
    if spherical:
        spread, between = (t.mean(1, keepdim=True).expand_as(t) for t in (spread, between))
    covariances = moments.covariances.double().lerp(spread, blend).addcmul_(blend * (1 - blend), between)
    return moments.means.double().addcmul_(gain.unsqueeze(1), shift), covariances


def with_slack(moments: Moments, slack: float, reg_covar: float, spherical: bool) -> Moments:
    """The published code's parameters: ``m̄/(p̄+slack)`` and ``c̄/(p̄+slack) − μμᵀ``, which shrink rare components to 0."""
    keep = (moments.resp / (moments.resp + slack)).unsqueeze(1)
    square = moments.means.square()
    if moments.covariances.ndim == 3:
        square = moments.means.unsqueeze(2) * moments.means.unsqueeze(1)
        keep = keep.unsqueeze(2)
        reg = reg_covar * torch.eye(square.shape[-1], dtype=square.dtype, device=square.device)
    else:
        reg = reg_covar
    if spherical:
        square = square.mean(1, keepdim=True).expand_as(square)
    covariances = keep * (moments.covariances - reg) + reg + keep * (1 - keep) * square
    return Moments(moments.resp, moments.means * keep.reshape(-1, 1), covariances)
