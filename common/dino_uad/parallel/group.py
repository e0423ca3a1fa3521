"""How processes that work together meet, and which of them this one is."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ignite.distributed as idist
import torch
import torch.distributed as dist

from dino_uad.parallel.machine import rank_device

logger = logging.getLogger(__name__)

TIMEOUT_MINUTES = 10.0
TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What it tells each process: its number, how many there are, and where they meet."""
_patience = 60 * TIMEOUT_MINUTES


def start_process_group(device: torch.device | str, timeout_minutes: float = TIMEOUT_MINUTES) -> None:
    """Join the processes that ``torchrun`` started, by NCCL between GPUs and by gloo otherwise; ignite joins too.

    Args:
        device: of this process, from :func:`~dino_uad.parallel.rank_device`.
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
