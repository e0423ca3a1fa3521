"""The E step of a truncated Dirichlet process mixture of Gaussians: responsibilities, and sums weighted by them.

Source: [DPMM] Schulthess & Konukoglu, MICCAI 2025. Mixing weights: :mod:`dino_uad.heads.dpmm.sticks`; densities
and the meaning of ``N``, ``D``, ``K``: :mod:`dino_uad.heads.dpmm.gaussian`. What is done with the sums:
:mod:`dino_uad.heads.dpmm.maximisation`.

Speed: a processor wants a chunk of rows that its cache holds and few components for them; a GPU wants few operations,
each of which costs it as much as a million numbers do. Diagonal covariances have :mod:`dino_uad.heads.dpmm.densities`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dino_uad import parallel
from dino_uad.heads.dpmm.densities import COLUMNS, ROWS, Densities
from dino_uad.heads.dpmm.gaussian import (
    Components,
    diagonal_products,
    diagonal_terms,
    log_joint,
    log_joint_full,
    responsibilities,
)
from dino_uad.products import linear, recurring

ROWS_PER_CHUNK = {"cpu": 1024, "cuda": 16384}
# Larger embeddings overflow float32 once squared and divided by a variance of 1e-6.
LARGEST_EMBEDDING = 1e12


class Sums(NamedTuple):
    """Sufficient statistics of some rows; add those of several shards to get those of their union."""

    counts: Tensor  # [K]: Σ_n r_nk
    first: Tensor  # [K,D]: Σ_n r_nk (x_n − c_k)
    second: Tensor  # [K,D] or [K,D,D]: Σ_n r_nk (x_n − c_k)(x_n − c_k)ᵀ
    log_likelihood: Tensor  # [1]: Σ_n log Σ_k π_k N(x_n | μ_k, Σ_k)


def count_rows(rows: Tensor) -> int:
    """Rows ``[N,D]`` of all ranks; every rank's are checked first, so that all ranks raise together.

    Raises:
        ValueError: an embedding is NaN, infinite or too large for float32 arithmetic.
    """
    ends = torch.stack(rows.aminmax()).tolist() if len(rows) else []
    usable = all(abs(end) < LARGEST_EMBEDDING for end in ends)
    device = rows.device if parallel.is_distributed() else "cpu"
    n_rows, n_bad = parallel.all_reduce_sum(torch.tensor([len(rows), not usable], device=device))[0].tolist()
    if n_bad:
        raise ValueError(
            f"embeddings hold NaN, infinite or larger values than {LARGEST_EMBEDDING:g} (on {n_bad} of "
            f"{parallel.world_size()} processes): check the images and the backbone's precision"
        )
    return n_rows


def batch_sums(
    rows: Tensor,
    components: Components,
    prepare: Callable[[Tensor], Tensor] = lambda rows: rows,
    images: Sequence[int] | None = None,
    wide: bool = False,
) -> tuple[Sums, Tensor]:
    """E step: sufficient statistics of ``rows`` ``[N,D]`` under ``components``.

    Components of weight 0 take no part in any product; their sums are 0.

    Args:
        rows: embeddings.
        components: of the mixture.
        prepare: applied to rows before the E step; chunk by chunk for variances ``[K,D]``, so that no second copy of
            all rows is held.
        images: how many rows each image has, in turn; one image when None. What is rounded depends on the images,
            not on how they are split over ranks.
        wide: whether all is in float64, not only components that are too narrow for float32.

    Returns:
        The sums in float64 and the centres ``c_k`` ``[K,D]`` they refer to, which depend on ``components`` alone.
    """
    if rows.is_cuda and components.covariances.ndim == 2:
        return _sums_at_once(rows, components, prepare)
    alive = torch.nonzero(components.log_weights > -torch.inf).squeeze(1)
    living = components.select(alive)
    if components.covariances.ndim == 3:
        sums, center = _sums_full(rows, living, prepare)
    else:
        sums, center = _sums_diagonal(rows, living, prepare, [len(rows)] if images is None else images, wide)
    if len(alive) == len(components.means):
        return sums, center
    scattered = [
        t.new_zeros(len(components.means), *t.shape[1:], dtype=torch.float64).index_copy_(0, alive, t) for t in sums[:3]
    ]
    centers = components.means.to(center.dtype).index_copy(0, alive, center)
    return Sums(*scattered, sums.log_likelihood), centers


def log_density(rows: Tensor, components: Components, wide: bool = False) -> Tensor:
    """``log Σ_k π_k N(x_n | μ_k, Σ_k)`` ``[N]`` of rows ``[N,D]``, as exact as in :func:`batch_sums`.

    Args:
        rows: embeddings.
        components: of the mixture.
        wide: whether all is in float64.
    """
    chunks = rows.split(ROWS_PER_CHUNK[rows.device.type]) if len(rows) else ()
    if wide or rows.is_cuda or components.covariances.ndim == 3:
        components = components.to(torch.float64)
        joints = (log_joint(chunk.double(), components) for chunk in chunks)
    else:
        densities = Densities(components)
        joints = (densities(chunk).joint for chunk in chunks)
    return torch.cat([rows.new_zeros(0), *(responsibilities(joint)[1] for joint in joints)])


def _sums_full(rows: Tensor, components: Components, prepare: Callable[[Tensor], Tensor]) -> tuple[Sums, Tensor]:
    rows = prepare(rows)
    resp, log_likelihood = responsibilities(log_joint_full(rows, components))
    first, second = [], []
    for mean, weight in zip(components.means, resp.T, strict=True):
        centred = rows - mean
        weighted = centred * weight.unsqueeze(1)
        first.append(weighted.sum(0))
        second.append(weighted.T @ centred)
    sums = Sums(resp.sum(0), torch.stack(first), torch.stack(second), log_likelihood.sum().reshape(1))
    return Sums(*(tensor.double() for tensor in sums)), components.means.double()


def _sums_diagonal(
    rows: Tensor, components: Components, prepare: Callable[[Tensor], Tensor], images: Sequence[int], wide: bool
) -> tuple[Sums, Tensor]:
    dtype = torch.float64 if wide else components.means.dtype
    densities = Densities(components.to(dtype))
    counts = torch.zeros_like(components.log_weights, dtype=torch.float64)
    moments = counts.new_zeros(len(counts), 2 * rows.shape[1])
    first, second = moments.chunk(2, dim=1)
    sums, start = Sums(counts, first, second, counts.new_zeros(1)), 0
    # Of a piece of an image in the model's precision, and of all in float64: float32 sums over what a rank happens to
    # have would differ with the split of the images over ranks, and EM amplifies that.
    for pieces in _groups(images, ROWS_PER_CHUNK[rows.device.type]):
        stop = start + sum(pieces)
        chunk = prepare(rows[start:stop]).to(dtype)
        found = densities(chunk)
        resp, log_likelihood = responsibilities(found.joint)
        sums.log_likelihood.add_(log_likelihood.double().sum())
        factors = found.factors
        for part, exact in zip(resp.split(pieces), chunk.split(pieces), strict=True):
            used = torch.nonzero(part.amax(0) > 0).squeeze(1)
            sharp = int((used < found.first_sharp).sum())
            weights, numbers = part.index_select(1, used), found.numbers[used]
            counts.index_add_(0, numbers, weights.sum(0, dtype=torch.float64))
            moments.index_add_(0, numbers[:sharp], _weighted(weights[:, :sharp], factors).double())
            if sharp < len(used):  # of which float32 would lose the width
                centred = exact.double() - densities.center
                wide_factors = torch.cat([centred, centred.square()], dim=1)
                moments.index_add_(0, numbers[sharp:], weights[:, sharp:].double().T @ wide_factors)
            factors = factors[len(part) :]
        start = stop
    return sums, densities.center.expand_as(first)


def _weighted(weights: Tensor, factors: Tensor) -> Tensor:
    """Sums ``[m,2D]`` over ``n`` rows, weighted by ``[n,m]``, of factors ``[n + ROWS or more,2D]``."""
    n_rows, n_columns = weights.shape
    filled = F.pad(weights, (0, recurring(n_columns, COLUMNS) - n_columns, 0, recurring(n_rows, ROWS) - n_rows))
    return linear(filled.T, factors[: len(filled)].T)[:n_columns]


def _groups(images: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yield for each chunk how many rows it has of each of its images, at most ``most`` in all; larger ones are cut."""
    group: list[int] = []
    for rows in images:
        for piece in [most] * (rows // most) + [rows % most]:
            if sum(group) + piece > most:
                yield group
                group = []
            group += [piece] if piece else []
    if group:
        yield group


def _sums_at_once(rows: Tensor, components: Components, prepare: Callable[[Tensor], Tensor]) -> tuple[Sums, Tensor]:
    """:func:`_sums_diagonal` for a GPU: float64 for all components, those of weight 0 included.

    Selecting the components that need float64, and those that take part, would cost more.
    """
    components = components.to(torch.float64)
    center = components.means.mean(0)
    terms = diagonal_terms(components, center)
    log_weights, means, _ = components
    counts, first, second = (torch.zeros_like(tensor) for tensor in (log_weights, means, means))
    total = counts.new_zeros(1)
    for chunk in map(prepare, rows.split(ROWS_PER_CHUNK["cuda"])) if len(rows) else ():
        centred = chunk.double() - center
        squares = centred.square()
        resp, log_likelihood = responsibilities(diagonal_products(centred, squares, *terms))
        total += log_likelihood.sum()
        counts += resp.sum(0)
        first.addmm_(resp.T, centred)
        second.addmm_(resp.T, squares)
    return Sums(counts, first, second, total), center.expand(len(counts), -1)
