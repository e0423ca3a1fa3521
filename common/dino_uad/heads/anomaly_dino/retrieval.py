"""Search among the patches of the normal images that are most like the query, not among all.

Normal anatomy at the level of a slice is in the slices that look like it. A query then costs one product of its class
token with those of all images, and a search whose size does not grow with their number. It is exact: what is retrieved
is searched as the whole bank would be.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.heads.anomaly_dino.nearest import nearest_neighbours, unit_rows
from dino_uad.heads.anomaly_dino.part import row_counts
from dino_uad.parallel import counts, gather_rows, is_distributed, own_place


def patch_rows(embeddings: Tensor) -> Tensor:
    """``[B,C,h,w]`` to ``[B,h*w,C]``."""
    return embeddings.flatten(2).transpose(1, 2)


def most_similar(cls: Tensor, tokens: Tensor, count: int, ends: Tensor) -> Tensor:
    """Numbers ``[B,min(count,N)]`` of the images most similar to class tokens ``[B,C]``, among those with rows if any.

    Args:
        cls: of the queries.
        tokens: ``[N,C]`` unit class tokens of the bank's images.
        count: how many to retrieve.
        ends: ``[N]`` where the rows of each end in the whole bank. In an image without rows, all of which a coreset
            left out, nothing could be searched: it comes after all others.
    """
    similarity = functional.normalize(cls.float(), dim=1) @ tokens.float().T
    similarity = similarity.masked_fill(row_counts(ends) == 0, -torch.inf)
    return similarity.topk(min(count, len(tokens)), dim=1).indices


def mean_distance(distances: Tensor) -> Tensor:
    """Mean ``[...]`` over the neighbours ``[...,k]`` that there are; infinite ones stand for rows that are missing."""
    found = distances.isfinite()
    return distances.where(found, 0).sum(dim=-1) / found.sum(dim=-1)


def retrieved_distances(
    queries: Tensor, wanted: Tensor, images: Tensor, bank: Tensor, ends: Tensor, k: int, here: Tensor | None = None
) -> Tensor:
    """Cosine distances of the wanted patches of each image to their ``k`` nearest rows of its retrieved images.

    Args:
        queries: ``[B,P,C]``.
        wanted: ``[B,P]`` bool; the others are not searched for, and their distances are 0.
        images: ``[B,R]`` numbers of the retrieved images.
        bank: ``[M,C]`` rows, image by image.
        ends: ``[N]`` where the rows of each image end.
        k: number of neighbours.
        here: ``[N]`` bool, the images whose rows this process holds; all when None.

    Returns:
        ``[B,P,k]`` ascending; infinite where there are fewer rows.
    """
    starts = functional.pad(ends[:-1], (1, 0)).tolist()
    spans = list(zip(starts, ends.tolist(), strict=True))
    result = torch.zeros(*queries.shape[:2], k, device=queries.device)
    for i, numbers in enumerate(images.tolist()):
        parts = [bank[slice(*spans[n])] for n in numbers if here is None or here[n]]
        rows = torch.cat([bank[:0], *parts])
        found = min(k, len(rows))
        distances = result.new_full((int(wanted[i].sum()), k), torch.inf)
        if found and len(distances):
            distances[:, :found] = nearest_neighbours(queries[i][wanted[i]], rows, found)[0]
        result[i, wanted[i]] = distances
    return result


def sharded_distances(
    queries: Tensor, wanted: Tensor, images: Tensor, bank: Tensor, ends: Tensor, k: int, here: Tensor
) -> Tensor:
    """:func:`retrieved_distances` where every rank holds the rows of some images; all ranks must call it."""
    if not is_distributed():
        return retrieved_distances(queries, wanted, images, bank, ends, k, here)
    everyones = (gather_rows(queries), gather_rows(wanted), gather_rows(images))
    mine = retrieved_distances(*everyones, bank, ends, k, here)
    merged = gather_rows(mine[None].contiguous())  # [ranks,B,P,k]
    own = merged[:, own_place(counts(len(queries), queries.device))].movedim(0, -2).flatten(-2)
    return own.topk(k, dim=-1, largest=False).values


def traced_distances(queries: Tensor, images: Tensor, bank: Tensor, ends: Tensor, k: int, longest: int) -> Tensor:
    """:func:`retrieved_distances` of all patches as one product, which can be traced and exported, for more memory.

    ``longest`` is the most rows that an image may have in the bank: a graph cannot ask the bank for it.
    """
    starts = functional.pad(ends[:-1], (1, 0))
    index = starts[images][:, :, None] + torch.arange(longest, device=bank.device)
    beyond = index >= ends[images][:, :, None]
    rows = bank[index.clamp_max(len(bank) - 1).flatten(1)]
    rows = unit_rows(rows.flatten(0, 1)).view(*rows.shape)
    similarity = functional.normalize(queries.float(), dim=2) @ rows.transpose(1, 2)
    similarity = similarity.masked_fill(beyond.flatten(1)[:, None], -torch.inf)
    return 1 - similarity.topk(k, dim=2).values
