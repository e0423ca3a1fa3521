"""Lloyd's K-means for many images at once, each on its own patches."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.heads.plus_plus import plus_plus

STARTS = 4
ITERATIONS = 300  # at most


class Clusters(NamedTuple):
    """Result of :func:`kmeans`.

    Attributes:
        centroids: ``[B,K,C]`` float32.
        assignment: ``[B,P]`` int64, the cluster of every row, masked rows included.
        inertia: ``[B]`` sum over the unmasked rows of the squared distance to their centroid.
    """

    centroids: Tensor
    assignment: Tensor
    inertia: Tensor


def kmeans(
    rows: Tensor,
    n_clusters: int,
    mask: Tensor | None = None,
    init: Tensor | None = None,
    seed: int = 0,
) -> Clusters:
    """Cluster the rows of every image; the best of several k-means++ starts is kept.

    The random numbers are the same for every image, so its result does not depend on which others are in the batch.

    Args:
        rows: ``[B,P,C]``.
        n_clusters: number of clusters ``K``. Where fewer distinct rows are unmasked, some centroids coincide.
        mask: ``[B,P]`` bool, the rows that count, at least one per image; all when None.
        init: ``[B,K,C]`` centroids to start from instead of k-means++.
        seed: of the k-means++ starts.
    """
    if n_clusters < 1:
        raise ValueError(f"n_clusters must be at least 1, found {n_clusters}")
    rows = rows.float()
    mask = torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device) if mask is None else mask
    if not mask.any(dim=1).all():
        raise ValueError("every image needs at least one unmasked row; found an image with none")
    # Distances are differences of squares: without the mean they keep their digits.
    centre = (rows * mask[..., None]).sum(dim=1, keepdim=True) / mask.sum(dim=1)[:, None, None]
    rows = (rows - centre).contiguous()  # embeddings come channel by channel, of which products are six times slower
    norms = rows.square().sum(dim=2)
    if init is not None:
        starts = [init.float() - centre]
    else:
        generator = torch.Generator().manual_seed(seed)
        drawn = (plus_plus(rows, uniform, mask) for uniform in torch.rand(STARTS, n_clusters, generator=generator))
        starts = (rows.take_along_dim(index[..., None], dim=1) for index in drawn)
    best = reduce(_better, (_lloyd(rows, norms, mask, start) for start in starts))
    return best._replace(centroids=best.centroids + centre)


def _better(first: Clusters, second: Clusters) -> Clusters:
    """For every image the clusters of smaller inertia, the first ones if they are equal."""
    chosen = second.inertia < first.inertia
    return Clusters(
        *(torch.where(chosen.view(-1, *[1] * (a.ndim - 1)), b, a) for a, b in zip(first, second, strict=True))
    )


def _lloyd(rows: Tensor, norms: Tensor, mask: Tensor, centroids: Tensor) -> Clusters:
    """Move centroids ``[B,K,C]`` to the means of their rows until no row changes its cluster."""
    result = centroids.clone()
    moving = torch.arange(len(rows), device=rows.device)  # images that go on: most stop long before the last one
    some, lengths, counted, assignment = rows, norms, mask, None
    for _ in range(ITERATIONS):
        distance = _squared_distance(some, lengths, centroids)
        previous, assignment = assignment, distance.argmin(dim=2)
        if previous is not None:
            moved = (previous != assignment).any(dim=1)
            if not moved.all():
                result[moving] = centroids
                some, lengths, counted = some[moved], lengths[moved], counted[moved]
                moving, centroids, distance, assignment = (a[moved] for a in (moving, centroids, distance, assignment))
            if not len(moving):
                break
        centroids = _means(some, counted, distance, assignment)
    result[moving] = centroids
    assignment = _squared_distance(rows, norms, result).argmin(dim=2)
    own = result.gather(1, assignment[..., None].expand_as(rows))
    return Clusters(result, assignment, ((rows - own).square().sum(dim=2) * mask).sum(dim=1))


def _means(rows: Tensor, mask: Tensor, distance: Tensor, assignment: Tensor) -> Tensor:
    """The mean ``[B,K,C]`` of every cluster's rows; a row far from all centroids where it has none."""
    member = functional.one_hot(assignment, distance.shape[2]).to(rows) * mask[..., None]
    size = member.sum(dim=1)
    means = (member.transpose(1, 2) @ rows) / size.clamp_min(1)[..., None]
    empty = size[..., None] == 0
    return torch.where(empty, _farthest(rows, distance, mask, size), means) if empty.any() else means


def _farthest(rows: Tensor, distance: Tensor, mask: Tensor, size: Tensor) -> Tensor:
    """For the ``n``-th empty cluster of an image the ``n``-th farthest row from its centroid: ``[B,K,C]``."""
    nearest = distance.amin(dim=2).masked_fill(~mask, -torch.inf)
    far = nearest.topk(min(size.shape[1], rows.shape[1]), dim=1).indices
    count = mask.sum(dim=1, keepdim=True)
    rank = ((size == 0).cumsum(dim=1) - 1).clamp_min(0).minimum(count - 1)
    index = far.gather(1, rank)
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[2]))


def _squared_distance(rows: Tensor, norms: Tensor, centroids: Tensor) -> Tensor:
    """``[B,P,C]`` with their squared norms ``[B,P]`` and ``[B,K,C]`` to ``[B,P,K]``."""
    constant = norms[..., None] + centroids.square().sum(dim=2)[:, None]
    return torch.baddbmm(constant, rows, centroids.transpose(1, 2), alpha=-2).clamp_min_(0)
