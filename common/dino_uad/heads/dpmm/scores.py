"""Anomaly scores of patches under a fitted DPMM: the paper's cosine score and the others of its ablation.

Every function takes embeddings ``[N,D]`` and the components that take part, and returns ``[N]``, higher is more
anomalous. All but the cosine score are computed in float64: few components are left after a fit, so it is cheap.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dino_uad.heads.cosine import cosine_distance
from dino_uad.heads.dpmm.gaussian import Components, log_joint, squared_mahalanobis
from dino_uad.products import linear


def wide_log_joint(rows: Tensor, components: Components) -> Tensor:
    """``log π_k + log N(x_n | μ_k, Σ_k)``, ``[N,K]``, in float64."""
    return log_joint(rows.double(), components.to(torch.float64))


def cosine(rows: Tensor, components: Components) -> Tensor:
    """One minus the largest cosine similarity to a mean, the score of [DPMM]."""
    rows, means = F.normalize(rows, dim=1), F.normalize(components.means, dim=1)
    return cosine_distance(rows, means[linear(rows, means).argmax(1)])


def likelihood(rows: Tensor, components: Components) -> Tensor:
    """Minus the log density of the mixture."""
    return -wide_log_joint(rows, components).logsumexp(1)


def euclidean(rows: Tensor, components: Components) -> Tensor:
    """Distance to the nearest mean."""
    means = components.means.double()
    # Differences of squares keep their digits around a common centre only.
    center = means.mean(0)
    rows, means = rows.double() - center, means - center
    squared = rows.square().sum(1, keepdim=True) + means.square().sum(1) - 2 * rows @ means.T
    return squared.clamp_min(0).amin(1).sqrt()


def mahalanobis(rows: Tensor, components: Components) -> Tensor:
    """Smallest Mahalanobis distance to a component."""
    return squared_mahalanobis(rows.double(), components.to(torch.float64)).amin(1).sqrt()


SCORES: dict[str, Callable[[Tensor, Components], Tensor]] = {
    "cosine": cosine,
    "likelihood": likelihood,
    "euclidean": euclidean,
    "mahalanobis": mahalanobis,
}
