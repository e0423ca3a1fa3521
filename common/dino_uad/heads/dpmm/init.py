"""Where the components of the DPMM begin: means drawn from the rows of the first batch, and their variance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dino_uad.heads.plus_plus import plus_plus

COVARIANCES = ("diag", "full", "spherical")


def kmeans_plus_plus(rows: Tensor, n_means: int, generator: torch.Generator) -> Tensor:
    """Rows drawn with probability proportional to their squared distance from the nearest one drawn before.

    See :func:`~dino_uad.heads.plus_plus.plus_plus`.

    Args:
        rows: ``[N,D]``.
        n_means: number of means K; may exceed N.
        generator: on the CPU.

    Returns:
        ``[K,D]`` copies of rows.
    """
    uniform = torch.rand(n_means, generator=generator, dtype=torch.float64)
    return rows[plus_plus((rows - rows.mean(0))[None], uniform)[0]]


def random_rows(rows: Tensor, n_means: int, generator: torch.Generator) -> Tensor:
    """Rows drawn uniformly, without replacement while there are enough: ``[N,D]`` to ``[K,D]``."""
    return rows[_permutation(len(rows), n_means, generator)]


def first_rows(rows: Tensor, n_means: int, generator: torch.Generator) -> Tensor:
    """A permutation of the first K rows, as published: ``[N,D]`` to ``[K,D]``. They all lie in the first image."""
    return random_rows(rows[:n_means], n_means, generator)


def first_covariance(rows: Tensor, covariance: str, reg_covar: float) -> Tensor:
    """Initial covariance: the variance ``[D]`` of all rows ``[N,D]``, the same for each component.

    Args:
        rows: of the first batch, from all ranks.
        covariance: "diag", "full", or "spherical", where each channel has the mean of the variances.
        reg_covar: added to every variance.

    Returns:
        ``[D]``; for "full" ``[D,D]`` with it on the diagonal.
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
