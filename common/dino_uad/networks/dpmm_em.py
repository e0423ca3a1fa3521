"""Expectation-maximisation for a truncated Dirichlet process mixture of Gaussians, as small functions on tensors.

Source: [DPMM] Schulthess & Konukoglu, MICCAI 2025; the mixing weights are in :mod:`dino_uad.networks.dpmm_sticks`.
``N`` rows (patch embeddings), ``D`` channels, ``K`` components. A covariance is ``[K,D]`` for "diag" and "spherical"
(all entries of a row equal) and ``[K,D,D]`` for "full", regularisation included.

Numerics: weights stay in log space. The statistics are kept as running means and covariances rather than running raw
moments, so nothing is lost to ``E[x²] − μ²`` and a decaying component keeps its shape. The Mahalanobis term of a
diagonal covariance is expanded into two matrix products around a common centre; components so narrow that float32
would lose accuracy in that expansion ("sharp") are computed in float64.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

ROWS_PER_CHUNK = 1024
# Below this count, products of responsibilities and squared embeddings underflow in float32: the component is empty.
EMPTY_COUNT = 1e-30
# Σ_d (μ−c)²/σ² above which the expanded Mahalanobis term may be off by more than 1e-3 in float32.
SHARP = 1e-3 / torch.finfo(torch.float32).eps


class Components(NamedTuple):
    """Parameters of the mixture."""

    log_weights: Tensor  # [K], -inf for a vanished component; need not be normalised
    means: Tensor  # [K,D]
    covariances: Tensor  # [K,D] or [K,D,D], regularisation included

    def select(self, index: Tensor) -> Components:
        return Components(*(tensor[index] for tensor in self))


class Sums(NamedTuple):
    """Sufficient statistics of some rows; add those of several shards to get those of their union."""

    counts: Tensor  # [K]: Σ_n r_nk
    first: Tensor  # [K,D]: Σ_n r_nk (x_n − c_k)
    second: Tensor  # [K,D] or [K,D,D]: Σ_n r_nk (x_n − c_k)(x_n − c_k)ᵀ
    log_likelihood: Tensor  # [1]: Σ_n log Σ_k π_k N(x_n | μ_k, Σ_k)


def wide(tensor: Tensor) -> Tensor:
    """``tensor`` in float64 where the device has it (Apple's GPUs have not)."""
    return tensor if tensor.device.type == "mps" else tensor.double()


@contextmanager
def full_float32():
    """Keep TF32 and bf16 out of float32 matrix products: Mahalanobis terms would be off by whole units."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


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
        return _log_joint_full(rows, components)
    center = components.means.mean(0)
    rows = rows - center
    return _diagonal_products(rows, rows * rows, *_diagonal_terms(components, center))


def _log_joint_full(rows: Tensor, components: Components) -> Tensor:
    precision = cholesky_precision(components.covariances)
    log_norm = precision.diagonal(dim1=-2, dim2=-1).log().sum(1) - 0.5 * rows.shape[1] * math.log(2 * math.pi)
    columns = [
        -0.5 * ((rows - mean) @ factor).square().sum(1)
        for mean, factor in zip(components.means, precision, strict=True)
    ]
    return torch.stack(columns, 1) + (components.log_weights + log_norm)


def _diagonal_terms(components: Components, center: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients ``[K]``, ``[D,K]``, ``[D,K]`` of 1, ``x − c`` and ``(x − c)²`` in :func:`log_joint`."""
    dtype = components.means.dtype
    log_weights, means, variances = (wide(tensor) for tensor in components)
    means, precision = means - wide(center), 1 / variances
    squared = (means.square() * precision).sum(1)
    offset = log_weights - 0.5 * (squared + variances.log().sum(1) + means.shape[1] * math.log(2 * math.pi))
    return offset.to(dtype), (means * precision).T.to(dtype), (-0.5 * precision).T.to(dtype)


def _diagonal_products(rows: Tensor, squares: Tensor, offset: Tensor, linear: Tensor, quadratic: Tensor) -> Tensor:
    return torch.addmm(torch.addmm(offset, rows, linear), squares, quadratic)


def responsibilities(log_joint: Tensor) -> tuple[Tensor, Tensor]:
    """Responsibilities ``[N,K]`` and the rows' log-likelihoods ``[N]``, from ``[N,K]``."""
    resp = torch.softmax(log_joint, 1)
    return resp, log_joint.amax(1) - resp.amax(1).log()


def batch_sums(rows: Tensor, components: Components) -> tuple[Sums, Tensor]:
    """E step: sufficient statistics of ``rows`` ``[N,D]`` under ``components``.

    Components of weight 0 take no part in any product; their sums are 0.

    Returns:
        The sums in float64 and the centres ``c_k`` ``[K,D]`` they refer to, which depend on ``components`` alone.
    """
    alive = torch.nonzero(components.log_weights > -torch.inf).squeeze(1)
    living = components.select(alive)
    sums_of = _sums_full if components.covariances.ndim == 3 else _sums_diagonal
    sums, center = sums_of(rows, living)
    if len(alive) == len(components.means):
        return sums, center
    scattered = [wide(t.new_zeros(len(components.means), *t.shape[1:])).index_copy_(0, alive, t) for t in sums[:3]]
    centers = components.means.to(center.dtype).index_copy(0, alive, center)
    return Sums(*scattered, sums.log_likelihood), centers


def _sums_full(rows: Tensor, components: Components) -> tuple[Sums, Tensor]:
    resp, log_likelihood = responsibilities(_log_joint_full(rows, components))
    first, second = [], []
    for mean, weight in zip(components.means, resp.T, strict=True):
        centred = rows - mean
        weighted = centred * weight.unsqueeze(1)
        first.append(weighted.sum(0))
        second.append(weighted.T @ centred)
    sums = Sums(resp.sum(0), torch.stack(first), torch.stack(second), log_likelihood.sum().reshape(1))
    return Sums(*(wide(tensor) for tensor in sums)), wide(components.means)


def _sums_diagonal(rows: Tensor, components: Components) -> tuple[Sums, Tensor]:
    center = components.means.mean(0)
    sharpness = ((components.means - center).square() / components.covariances).sum(1)
    if rows.dtype == torch.float32:
        sharp = sharpness > SHARP
    else:
        sharp = torch.zeros_like(sharpness, dtype=torch.bool)
    order = torch.argsort(sharp.int(), stable=True)
    n_smooth = len(order) - int(sharp.sum())
    groups = [_DiagonalGroup(components.select(order[:n_smooth]), center)]
    if n_smooth < len(order):
        groups.append(_DiagonalGroup(Components(*map(wide, components.select(order[n_smooth:]))), wide(center)))
    total = wide(rows.new_zeros(1))
    for chunk in rows.split(ROWS_PER_CHUNK):
        joints = [group.log_joint(chunk) for group in groups]
        resp, log_likelihood = responsibilities(joints[0] if len(joints) == 1 else torch.cat(joints, 1))
        groups[0].accumulate(resp[:, :n_smooth])
        if len(groups) > 1:
            groups[1].accumulate(resp[:, n_smooth:])
        total += wide(log_likelihood).sum()
    back = torch.argsort(order)
    merged = [torch.cat([wide(getattr(group, name)) for group in groups])[back] for name in Sums._fields[:3]]
    return Sums(*merged, total), wide(center).expand(len(order), -1)


class _DiagonalGroup:
    """Components that share a floating point type, and their sums over the chunks seen so far."""

    def __init__(self, components: Components, center: Tensor) -> None:
        self.center, self.terms = center, _diagonal_terms(components, center)
        self.counts = torch.zeros_like(components.log_weights)
        self.first, self.second = torch.zeros_like(components.means), torch.zeros_like(components.means)

    def log_joint(self, chunk: Tensor) -> Tensor:
        self._rows = chunk.to(self.center.dtype) - self.center
        self._squares = self._rows * self._rows
        return _diagonal_products(self._rows, self._squares, *self.terms).to(chunk.dtype)

    def accumulate(self, resp: Tensor) -> None:
        resp = resp.to(self.center.dtype)
        self.counts += resp.sum(0)
        self.first.addmm_(resp.T, self._rows)
        self.second.addmm_(resp.T, self._squares)


class Moments(NamedTuple):
    """Running statistics: ``p̄``, ``m̄/p̄`` and ``c̄/p̄ − μμᵀ + reg`` in the notation of [DPMM]."""

    resp: Tensor  # [K]
    means: Tensor  # [K,D]
    covariances: Tensor  # [K,D] or [K,D,D]


def update_moments(
    moments: Moments, sums: Sums, center: Tensor, n_rows: float, step_size: float, reg_covar: float, spherical: bool
) -> Moments:
    """M step: blend a batch's statistics into the running ones.

    Equal to exponential averages of ``p̄``, ``m̄``, ``c̄`` ([DPMM], eq. 8) followed by ``μ = m̄/p̄`` and
    ``Σ = c̄/p̄ − μμᵀ`` (eq. 5), rewritten for means and covariances. Components without rows keep their shape.

    Args:
        moments: running statistics.
        sums: of the whole batch, all ranks.
        center: ``[K,D]``, what ``sums`` refer to.
        n_rows: rows of the batch, all ranks.
        step_size: weight γ of this batch.
        reg_covar: added to the variances.
        spherical: average the variances over the channels.
    """
    full = sums.second.ndim == 3
    counts = torch.where(sums.counts < EMPTY_COUNT, 0, sums.counts)
    share = counts / n_rows
    resp = (1 - step_size) * wide(moments.resp) + step_size * share
    resp = torch.where(resp < torch.finfo(torch.float32).tiny, 0, resp)
    gain = step_size * share / torch.where(resp > 0, resp, 1)

    divisor = torch.where(counts > 0, counts, 1).unsqueeze(1)
    offset = sums.first / divisor
    shift = center + offset - wide(moments.means)
    if full:
        spread = sums.second / divisor.unsqueeze(2) - offset.unsqueeze(2) * offset.unsqueeze(1)
        spread.diagonal(dim1=1, dim2=2).clamp_min_(0).add_(reg_covar)
        between, blend = shift.unsqueeze(2) * shift.unsqueeze(1), gain[:, None, None]
    else:
        spread = (sums.second / divisor - offset.square()).clamp_min(0) + reg_covar
        between, blend = shift.square(), gain[:, None]
    if spherical:
        spread, between = (t.mean(1, keepdim=True).expand_as(t) for t in (spread, between))
    covariances = (1 - blend) * wide(moments.covariances) + blend * spread + blend * (1 - blend) * between
    means = wide(moments.means) + gain.unsqueeze(1) * shift
    dtype = moments.means.dtype
    return Moments(resp.to(dtype), means.to(dtype), covariances.to(dtype))


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
