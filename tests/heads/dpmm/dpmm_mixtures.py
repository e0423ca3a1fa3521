"""Mixtures that the tests of the DPMM fit, and scipy's word on their densities."""

import numpy as np
import torch
from scipy.stats import multivariate_normal

from dino_uad.heads.dpmm import Components, DPMMHead


def clusters(n_rows: int, dim: int, n_clusters: int = 6, seed: int = 0, spread: float = 0.3) -> torch.Tensor:
    """Rows ``[N,D]`` of a Gaussian mixture with unequal weights."""
    generator = np.random.default_rng(seed)
    means, scales = generator.normal(size=(n_clusters, dim)), spread * generator.uniform(0.5, 1.5, (n_clusters, dim))
    labels = generator.choice(n_clusters, n_rows, p=generator.dirichlet(np.full(n_clusters, 5.0)))
    return torch.from_numpy(means[labels] + scales[labels] * generator.normal(size=(n_rows, dim))).float()


def images(rows: torch.Tensor, height: int = 1) -> torch.Tensor:
    """``[N,D]`` rows as one image ``[1,D,height,N/height]``."""
    return rows.T.reshape(1, rows.shape[1], height, -1)


def fitted_head(rows: torch.Tensor, n_steps: int = 5, **options) -> DPMMHead:
    head = DPMMHead(rows.shape[1], **{"n_components": 12, **options})
    for _ in range(n_steps):
        head.fit_batch(images(rows))
    return head


def multivariate_normal_log_joint(rows: torch.Tensor, components: Components) -> np.ndarray:
    """``[N,K]`` by scipy in float64."""
    log_weights, means, covariances = (tensor.double().numpy() for tensor in components)
    columns = [
        weight + multivariate_normal(mean, np.diag(cov) if cov.ndim == 1 else cov).logpdf(rows.double().numpy())
        for weight, mean, cov in zip(log_weights, means, covariances, strict=True)
    ]
    return np.stack(columns, 1)
