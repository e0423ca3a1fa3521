"""What this process takes of its machine, which others share: its device, and processes that load its images."""

from __future__ import annotations

import math
import os
import shutil

import torch

from dino_uad.processor import cores
from dino_uad.settings import require_device

_MOST_WORKERS = 16
_SHARED_BY_A_WORKER = 512 << 20  # bytes: two volumes of 512 × 512 × 200 voxels, loaded ahead


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
