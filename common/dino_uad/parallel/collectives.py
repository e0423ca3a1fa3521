"""Collective operations, which all processes call in the same order; each is the identity for one process alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dino_uad.parallel.group import is_distributed, rank, world_size

T = TypeVar("T")
_ROWS = 65536  # that travel at once


def all_reduce_sum(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Sum each tensor over the ranks, in place, and return them."""
    if is_distributed():
        for tensor in tensors:
            dist.all_reduce(tensor)
    return tensors


def sum_gradients(parameters: Iterable[nn.Parameter], scale: float = 1.0) -> None:
    """Replace the gradients by ``scale`` times their sum over the ranks, in one collective."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not is_distributed() or not gradients:
        return
    (flat,) = all_reduce_sum(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient)).mul_(scale)


def broadcast(tensor: Tensor) -> Tensor:
    """Overwrite ``tensor`` in place with rank 0's and return it."""
    if is_distributed():
        dist.broadcast(tensor, 0)
    return tensor


def broadcast_object(mine: T) -> T:
    """What rank 0 has, such as a list of names; on every rank."""
    if not is_distributed():
        return mine
    parcel: list = [mine]
    dist.broadcast_object_list(parcel, 0)
    return parcel[0]


def gather_objects(mine: T) -> list[T]:
    """A small thing, such as a list of names, of every rank, in rank order; on every rank."""
    if not is_distributed():
        return [mine]
    everyones: list = [None] * world_size()
    dist.all_gather_object(everyones, mine)
    return everyones


def counts(count: int, device: torch.device) -> list[int]:
    """Every rank's count, such as that of its rows, in rank order; on every rank."""
    if world_size() == 1:
        return [count]
    everyones = torch.zeros(world_size(), dtype=torch.int64, device=device)
    everyones[rank()] = count
    all_reduce_sum(everyones)
    return everyones.tolist()


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate ``[n_r, ...]`` of all ranks along the first axis, in rank order; ``n_r`` may differ or be 0."""
    if not is_distributed():
        return rows
    everyones = counts(len(rows), rows.device)
    padded = rows.new_zeros((max(everyones), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather([_as_bytes(part) for part in parts], _as_bytes(padded))
    return torch.cat([part[:count] for part, count in zip(parts, everyones, strict=True)])


def collect_rows(rows: Tensor) -> Tensor | None:
    """:func:`gather_rows` into the memory of rank 0's host, a piece at a time; None on the other ranks."""
    if not is_distributed():
        return rows.cpu()
    everyones = counts(len(rows), rows.device)
    if rank() > 0:
        for start in range(0, len(rows), _ROWS):
            dist.send(_as_bytes(rows[start : start + _ROWS].contiguous()), 0)
        return None
    result = torch.empty((sum(everyones), *rows.shape[1:]), dtype=rows.dtype)
    result[: len(rows)] = rows.cpu()
    place = len(rows)
    for source, count in enumerate(everyones[1:], start=1):
        for start in range(0, count, _ROWS):
            piece = rows.new_empty((min(_ROWS, count - start), *rows.shape[1:]))
            dist.recv(_as_bytes(piece), source)
            result[place : place + len(piece)] = piece.cpu()
            place += len(piece)
    return result


def _as_bytes(rows: Tensor) -> Tensor:
    """The same memory as bytes: not every backend moves booleans and 16-bit integers."""
    return rows.unsqueeze(-1).view(torch.uint8)
