"""Gaussian components of the DPMM: densities on tensors, with care for what float32 can hold.

``N`` rows (patch embeddings), ``D`` channels, ``K`` components. A covariance is ``[K,D]`` for "diag" and "spherical"
(all entries of a row equal) and ``[K,D,D]`` for "full", regularisation included.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# e to the power of less is no normal float32.
UNDERFLOW = -87.0


class Components(NamedTuple):
    """Parameters of the mixture."""

    log_weights: Tensor  # [K], -inf for a vanished component; need not be normalised
    means: Tensor  # [K,D]
    covariances: Tensor  # [K,D] or [K,D,D], regularisation included

    def select(self, index: Tensor) -> Components:
        """The components at ``index``, ``[n]`` numbers or ``[K]`` bool."""
        return Components(*(tensor[index] for tensor in self))

    def to(self, dtype: torch.dtype) -> Components:
        """The same in another precision."""
        return Components(*(tensor.to(dtype) for tensor in self))


def cholesky_precision(covariances: Tensor) -> Tensor:
    """Upper factors ``U`` with ``Σ⁻¹ = U Uᵀ``, ``[K,D,D]``; matrices that rounding made indefinite are repaired."""
    factor, info = torch.linalg.cholesky_ex(covariances)
    bad = info > 0
    if bool(bad.any()):
        values, vectors = torch.linalg.eigh(covariances[bad])
        floor = values[:, -1:] * covariances.shape[-1] * torch.finfo(values.dtype).eps
        values = torch.maximum(values, floor.clamp_min(torch.finfo(values.dtype).tiny))
        # The QR factor of diag(√λ)Vᵀ is the Cholesky factor, without forming the matrix that failed.
        upper = torch.linalg.qr(values.sqrt().unsqueeze(-1) * vectors.mT).R
        upper = upper * upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-1)
        factor = factor.clone()
        factor[bad] = upper.mT
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device).expand_as(factor)
    return torch.linalg.solve_triangular(factor, eye, upper=False).mT


def log_det(covariances: Tensor) -> Tensor:
    """``log |Σ_k|``, ``[K]``."""
    if covariances.ndim == 2:
        return covariances.log().sum(1)
    return -2 * cholesky_precision(covariances).diagonal(dim1=-2, dim2=-1).log().sum(1)


def squared_mahalanobis(rows: Tensor, components: Components) -> Tensor:
    """``(x_n − μ_k)ᵀ Σ_k⁻¹ (x_n − μ_k)``, ``[N,K]``."""
    log_norm = log_det(components.covariances) + rows.shape[1] * math.log(2 * math.pi)
    log_density = log_joint(rows, components._replace(log_weights=torch.zeros_like(components.log_weights)))
    return (-2 * log_density - log_norm).clamp_min(0)


def log_joint(rows: Tensor, components: Components) -> Tensor:
    """``log π_k + log N(x_n | μ_k, Σ_k)``, ``[N,K]``, in the dtype of the arguments."""
    if components.covariances.ndim == 3:
        return log_joint_full(rows, components)
    center = components.means.mean(0)
    rows = rows - center
    return diagonal_products(rows, rows * rows, *diagonal_terms(components, center))


def log_joint_full(rows: Tensor, components: Components) -> Tensor:
    """:func:`log_joint` for full covariances ``[K,D,D]``."""
    precision = cholesky_precision(components.covariances)
    log_norm = precision.diagonal(dim1=-2, dim2=-1).log().sum(1) - 0.5 * rows.shape[1] * math.log(2 * math.pi)
    columns = [
        -0.5 * ((rows - mean) @ factor).square().sum(1)
        for mean, factor in zip(components.means, precision, strict=True)
    ]
    return torch.stack(columns, 1) + (components.log_weights + log_norm)


def diagonal_terms(components: Components, center: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients ``[K]``, ``[D,K]``, ``[D,K]`` of 1, ``x − c`` and ``(x − c)²`` in :func:`log_joint`."""
    dtype = components.means.dtype
    log_weights, means, variances = (tensor.double() for tensor in components)
    means, precision = means - center.double(), 1 / variances
    squared = (means.square() * precision).sum(1)
    offset = log_weights - 0.5 * (squared + variances.log().sum(1) + means.shape[1] * math.log(2 * math.pi))
    return offset.to(dtype), (means * precision).T.to(dtype), (-0.5 * precision).T.to(dtype)


def diagonal_products(rows: Tensor, squares: Tensor, offset: Tensor, linear: Tensor, quadratic: Tensor) -> Tensor:
    """``[N,K]`` from rows and their squares ``[N,D]``, both around the centre, and :func:`diagonal_terms`."""
    return torch.addmm(offset, rows, linear).addmm_(squares, quadratic)


def responsibilities(log_joint: Tensor) -> tuple[Tensor, Tensor]:
    """Responsibilities ``[N,K]``, in place of ``log_joint``, and the rows' log-likelihoods ``[N]``.

    Those below e^-87, which float32 could hold as denormal numbers only, are 0: their arithmetic is ten times slower.
    """
    largest = log_joint.amax(1, keepdim=True)
    shifted = F.threshold_(log_joint.sub_(largest), UNDERFLOW, -torch.inf)
    resp = torch.softmax(shifted, 1, out=shifted)
    return resp, largest.squeeze(1) - resp.amax(1).log()
