"""Collective operations on sufficient statistics; every one is the identity outside ``torch.distributed``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether a process group with more than one rank is running."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's rank, 0 outside a process group."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of ranks, 1 outside a process group."""
    return dist.get_world_size() if is_distributed() else 1


def all_reduce_sum(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Sum each tensor over the ranks, in place, and return them."""
    if is_distributed():
        for tensor in tensors:
            dist.all_reduce(tensor)
    return tensors


def broadcast(tensor: Tensor, source: int = 0) -> Tensor:
    """Overwrite ``tensor`` in place with rank ``source``'s and return it."""
    if is_distributed():
        dist.broadcast(tensor, source)
    return tensor


def share(items: Iterable[T]) -> list[T]:
    """This rank's items: every ``world_size``-th, from the ``rank``-th on."""
    return list(itertools.islice(items, rank(), None, world_size()))


def join_shares(mine: Sequence[T]) -> list[T]:
    """What all ranks made of their :func:`share`, one result an item, in the order of the items; on every rank."""
    shares = gather_objects(list(mine))
    return [item for row in itertools.zip_longest(*shares, fillvalue=_NOTHING) for item in row if item is not _NOTHING]


def gather_objects(mine: T) -> list[T]:
    """A small thing, such as a list of names, of every rank, in rank order; on every rank."""
    if not is_distributed():
        return [mine]
    everyones: list = [None] * world_size()
    dist.all_gather_object(everyones, mine)
    return everyones


_NOTHING = object()


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate ``[n_r, ...]`` of all ranks along the first axis, in rank order; ``n_r`` may differ or be 0."""
    if not is_distributed():
        return rows
    counts = torch.zeros(world_size(), dtype=torch.int64, device=rows.device)
    counts[rank()] = len(rows)
    dist.all_reduce(counts)
    padded = rows.new_zeros((int(counts.max()), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts.tolist(), strict=True)])
