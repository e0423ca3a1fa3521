"""Processes that work together: how they meet, and collective operations, each the identity for one process alone."""

from __future__ import annotations

import datetime
import itertools
import logging
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import ignite.distributed as idist
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dino_uad.processor import cores
from dino_uad.settings import require_device

logger = logging.getLogger(__name__)

T = TypeVar("T")
_ROWS = 65536  # that travel at once
TIMEOUT_MINUTES = 10.0
_MOST_WORKERS = 16
TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What it tells each process: its number, how many there are, and where they meet."""
_SHARED_BY_A_WORKER = 512 << 20  # bytes: two volumes of 512 × 512 × 200 voxels, loaded ahead
_patience = 60 * TIMEOUT_MINUTES


def rank_device(kind: str | None = None) -> torch.device:
    """The device of this process: under ``torchrun`` the GPU of its number on this machine, ``LOCAL_RANK``.

    Args:
        kind: ``cpu``, ``cuda``, or a device with its number, which is taken as it is; None is a GPU where there is one.

    Raises:
        RuntimeError: there are more processes on this machine than GPUs.
    """
    if kind is not None:
        require_device("device", kind)
    place = torch.device(kind or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type != "cuda" or place.index is not None:
        return place
    number, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= count:
        raise RuntimeError(
            f"process {number} of this machine found {count} GPUs; expected one a process: start fewer "
            "(--nproc_per_node), or run on the CPU"
        )
    return torch.device("cuda", number)


def loader_workers(device: torch.device | str) -> int:
    """Processes that load images beside this one: its part of the cores on a machine with a GPU, at most 16.

    None on a processor, which is busy with the backbone, or where there is one core for each rank, and only as many as
    there is shared memory for, through which images come: a container often has 64 MB.
    """
    if torch.device(device).type == "cpu":
        return 0
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else math.inf
    return int(max(0, min(_MOST_WORKERS, cores() // ranks - 1, shared // ranks // _SHARED_BY_A_WORKER)))


def start_process_group(device: torch.device | str, timeout_minutes: float = TIMEOUT_MINUTES) -> None:
    """Join the processes that ``torchrun`` started, by NCCL between GPUs and by gloo otherwise; ignite joins too.

    Args:
        device: of this process, from :func:`rank_device`.
        timeout_minutes: how long one process waits for the others, or in :func:`~dino_uad.unequal_work.unequal_work`
            for a sign of life, before all give up.

    Raises:
        RuntimeError: the environment does not say which of how many processes this one is.
    """
    global _patience
    device = torch.device(device)  # a word, where a user gave it
    if device.type == "cuda":
        torch.cuda.set_device(device)  # collectives on objects use the current one
    timeout, _patience = datetime.timedelta(minutes=timeout_minutes), 60 * timeout_minutes
    missing = [name for name in TORCHRUN if name not in os.environ]
    if not missing:  # all may be there by mistake, and then nobody comes
        number, count, host, port = (os.environ[name] for name in TORCHRUN)
        logger.info(f"process {number} of {count} waits at {host}:{port} until all have started")
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
    except ValueError as error:
        raise RuntimeError(_not_started_by_torchrun(missing)) if missing else error from error
    idist.sync()


def _not_started_by_torchrun(missing: Sequence[str]) -> str:
    """What to do where the environment lacks what torchrun sets, and may hold a rest of it."""
    left = ", ".join(name for name in TORCHRUN if name in os.environ)
    return (
        f"{', '.join(missing)} not found in the environment; expected what torchrun sets: start with torchrun "
        "--nproc_per_node=N -m monai.bundle run …, or, for one process, leave out multi_gpu_*.json"
        f"{f' and unset {left}' if left else ''}"
    )


def patience() -> float:
    """Seconds that the group was started to wait for a process."""
    return _patience


def stop_process_group() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def process_group(kind: str | None = None) -> Iterator[torch.device]:
    """This process's device, within a group if ``torchrun`` started several processes and none is running."""
    device = rank_device(kind)
    mine = int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized()
    if mine:
        start_process_group(device)
    try:
        yield device
    finally:
        if mine:
            stop_process_group()


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


def sum_gradients(parameters: Iterable[nn.Parameter], scale: float = 1.0) -> None:
    """Replace the gradients by ``scale`` times their sum over the ranks, in one collective."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not is_distributed() or not gradients:
        return
    (flat,) = all_reduce_sum(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient)).mul_(scale)


def broadcast(tensor: Tensor, source: int = 0) -> Tensor:
    """Overwrite ``tensor`` in place with rank ``source``'s and return it."""
    if is_distributed():
        dist.broadcast(tensor, source)
    return tensor


def broadcast_object(mine: T, source: int = 0) -> T:
    """What rank ``source`` has, such as a list of names; on every rank."""
    if not is_distributed():
        return mine
    parcel: list = [mine]
    dist.broadcast_object_list(parcel, source)
    return parcel[0]


def share(items: Iterable[T]) -> list[T]:
    """This rank's items: every ``world_size``-th, from the ``rank``-th on."""
    return list(itertools.islice(items, rank(), None, world_size()))


def section(items: Sequence[T], work: Sequence[int] | None = None) -> list[T]:
    """This process's section of ``items``: those of all processes, one after another, are the items in their order.

    Args:
        items: the same in all processes.
        work: how much there is to do with each, above 0; the same when None. No process has more than its part of it
            and the largest item; one may have none.
    """
    work = [1] * len(items) if work is None else work
    total, before, mine = sum(work), 0, []
    for item, amount in zip(items, work, strict=True):
        if (2 * before + amount) * world_size() // (2 * total) == rank():  # where its middle lies
            mine.append(item)
        before += amount
    return mine


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


def counts(count: int, device: torch.device) -> list[int]:
    """Every rank's count, such as that of its rows, in rank order; on every rank."""
    if world_size() == 1:
        return [count]
    everyones = torch.zeros(world_size(), dtype=torch.int64, device=device)
    everyones[rank()] = count
    all_reduce_sum(everyones)
    return everyones.tolist()


def own_place(counts: Sequence[int]) -> slice:
    """Slice of this rank's part in rows that were gathered from all ranks, in rank order, ``counts`` of each."""
    start = sum(counts[: rank()])
    return slice(start, start + counts[rank()])


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate ``[n_r, ...]`` of all ranks along the first axis, in rank order; ``n_r`` may differ or be 0."""
    if not is_distributed():
        return rows
    everyones = counts(len(rows), rows.device)
    padded = rows.new_zeros((max(everyones), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, everyones, strict=True)])


def collect_rows(rows: Tensor) -> Tensor | None:
    """:func:`gather_rows` into the memory of rank 0's host, a piece at a time; None on the other ranks."""
    if not is_distributed():
        return rows.cpu()
    everyones = counts(len(rows), rows.device)
    if rank() > 0:
        for start in range(0, len(rows), _ROWS):
            dist.send(rows[start : start + _ROWS].contiguous(), 0)
        return None
    result = torch.empty((sum(everyones), *rows.shape[1:]), dtype=rows.dtype)
    result[: len(rows)] = rows.cpu()
    place = len(rows)
    for source, count in enumerate(everyones[1:], start=1):
        for start in range(0, count, _ROWS):
            piece = rows.new_empty((min(_ROWS, count - start), *rows.shape[1:]))
            dist.recv(piece, source)
            result[place : place + len(piece)] = piece.cpu()
            place += len(piece)
    return result
