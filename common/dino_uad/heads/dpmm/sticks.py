"""Stick-breaking weights of a truncated Dirichlet process and its concentration, in log space.

Sources: [DPMM] Schulthess & Konukoglu, MICCAI 2025; Kimura et al., Pattern Anal. Appl. 16(1), 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dino_uad.exact import running_sum


def log_stick_weights(resp: Tensor, concentration: Tensor, n_rows: float, slack: float = 0.0) -> Tensor:
    """Log mixing weights from MAP stick ratios ``v_k = p̄_k / (p̄_k + (α−1)/n + Σ_{i>k} p̄_i)`` ([DPMM], eq. 5).

    The posterior mode of a stick is 1 when α < 1, hence the clamp; without it the ratio exceeds 1 and its log is NaN.

    Args:
        resp: running mean responsibilities ``p̄``, ``[K]``.
        concentration: α.
        n_rows: rows ``n`` of a batch.
        slack: added to the denominator; the published code has 1.2e-7 there.

    Returns:
        ``log v_k + Σ_{i<k} log(1−v_i)``, ``[K]``; they sum to slightly less than 1 and are -inf where ``p̄_k`` is 0.
    """
    remaining = later_mass(resp) + (concentration - 1).clamp_min(0) / n_rows + slack
    log_total = _log(resp + remaining)
    broken = running_sum((_log(remaining) - log_total)[:-1])
    # Only components without mass follow a stick of ratio 1: they are empty whatever is left of the stick.
    weights = _log(resp) - log_total + torch.cat([broken.new_zeros(1), broken])
    return torch.where(resp > 0, weights, -torch.inf)


def _log(numbers: Tensor) -> Tensor:
    """``numbers.log()`` of a few hundred: torch hands them to MKL, which wakes every thread of the process for it."""
    return torch.xlogy(1, numbers)


def later_mass(resp: Tensor) -> Tensor:
    """``Σ_{i>k} p̄_i`` for every k, ``[K]``, summed from the end so that small tails survive."""
    reverse = running_sum(resp.flip(0)).flip(0)
    return torch.cat([reverse[1:], reverse.new_zeros(1)])


def update_concentration(concentration: Tensor, resp: Tensor, n_rows: float) -> Tensor:
    """Empirical Bayes step for α ([DPMM], eq. 10 with counts ``n p̄``).

    ``α ← −(K−1) / Σ_{k<K} [ψ(α + Σ_{i>k} N_i) − ψ(1 + α + N_k + Σ_{i>k} N_i)]``
    """
    counts, later = n_rows * resp, n_rows * later_mass(resp)
    expected_log_rest = torch.digamma(concentration + later) - torch.digamma(1 + concentration + counts + later)
    return ((1 - len(resp)) / expected_log_rest[:-1].sum()).clamp_min(1e-6)


def sample_log_weights(n_components: int, concentration: float, generator: torch.Generator) -> Tensor:
    """Log weights ``[K]`` of sticks drawn from Beta(1, α), the last one taking all that is left."""
    log_rest = (
        torch.rand(n_components, generator=generator, dtype=torch.float64).clamp_min(1e-300).log() / concentration
    )
    log_ratio = torch.log(-torch.expm1(log_rest))
    log_ratio[-1] = 0
    return log_ratio + torch.cat([log_rest.new_zeros(1), log_rest[:-1].cumsum(0)])
