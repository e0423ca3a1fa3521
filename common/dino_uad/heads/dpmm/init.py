"""Where the components of the DPMM begin: means drawn from the rows of the first batch, and their variance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def kmeans_plus_plus(rows: Tensor, n_means: int, generator: torch.Generator) -> Tensor:
    """Rows drawn with probability proportional to their squared distance from the nearest one drawn before.

    Arthur & Vassilvitskii, SODA 2007. When the distinct rows run out, the rest is drawn uniformly.

    Args:
        rows: ``[N,D]``.
        n_means: number of means K; may exceed N.
        generator: on the CPU.

    Returns:
        ``[K,D]`` copies of rows.
    """
    draws = torch.rand(n_means, generator=generator, dtype=torch.float64).tolist()
    centred = rows - rows.mean(0)
    norms = centred.square().sum(1)
    # Below this, a distance is rounding noise of the expanded square: the row has been drawn already.
    noise = 1e-6 * norms.max()
    nearest = torch.full_like(norms, torch.inf)
    chosen = []
    for draw in draws:
        weights = torch.where(nearest > noise, nearest, 0).cpu().double() if chosen else torch.ones(len(rows)).double()
        total = weights.cumsum(0)
        if float(total[-1]) == 0:
            total = torch.ones_like(weights).cumsum(0)
        index = int(torch.searchsorted(total, draw * total[-1], right=True).clamp_max(len(rows) - 1))
        chosen.append(index)
        distance = norms + norms[index] - 2 * (centred @ centred[index])
        nearest = torch.minimum(nearest, distance.clamp_min_(0))
    return rows[chosen]


def random_rows(rows: Tensor, n_means: int, generator: torch.Generator) -> Tensor:
    """Rows drawn uniformly, without replacement while there are enough: ``[N,D]`` to ``[K,D]``."""
    return rows[_permutation(len(rows), n_means, generator)]


def first_rows(rows: Tensor, n_means: int, generator: torch.Generator) -> Tensor:
    """A permutation of the first K rows, as published: ``[N,D]`` to ``[K,D]``. They all lie in the first image."""
    return random_rows(rows[:n_means], n_means, generator)


def first_covariance(rows: Tensor, covariance: str, reg_covar: float) -> Tensor:
    """That of all rows ``[N,D]``, for every component: a variance ``[D]``, "full" has it on the diagonal of ``[D,D]``.

    Args:
        rows: of the first batch, from all ranks.
        covariance: "diag", "full", or "spherical", where each channel has the mean of the variances.
        reg_covar: added to every variance.
    """
    variance = rows.double().var(0, correction=min(1, len(rows) - 1)) + reg_covar
    if covariance == "spherical":
        variance = variance.mean().expand_as(variance)
    return torch.diag(variance) if covariance == "full" else variance


def _permutation(n_rows: int, n_means: int, generator: torch.Generator) -> Tensor:
    rounds = -(-n_means // n_rows)
    return torch.cat([torch.randperm(n_rows, generator=generator) for _ in range(rounds)])[:n_means]


INITIALISERS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "kmeans++": kmeans_plus_plus,
    "random": random_rows,
    "first_rows": first_rows,
}
