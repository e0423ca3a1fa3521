"""What a call costs: peak memory beyond what was held before it, and a device that has finished."""

from __future__ import annotations

import gc
import platform
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import psutil
import torch

from dino_uad.heap import return_free_memory
from dino_uad.wording import plural

resource = None
with suppress(ImportError):  # Windows has none
    import resource

Call = Callable[[], object]
MEGABYTE = 1e6


def synchronize(device: torch.device) -> None:
    """Wait for the device, where it runs beside the host."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_megabytes(device: torch.device) -> float:
    """Largest memory of this process so far: allocated on CUDA, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGABYTE
    if resource is None:
        return psutil.Process().memory_info().peak_wset / MEGABYTE
    unit = 1 if sys.platform == "darwin" else 1024  # bytes that ru_maxrss counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor with the number of threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {plural(torch.get_num_threads(), 'thread')}"


def peak_extra_megabytes(call: Call, device: torch.device, period: float = 0.001) -> float:
    """Largest growth while ``call`` runs: allocated on CUDA, else resident, looked at every ``period`` seconds."""
    gc.collect()
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / MEGABYTE
    return_free_memory()  # or the call would grow into it unseen
    process = psutil.Process()
    before = process.memory_info().rss
    with _Sampler(process, period) as sampler:
        call()
    return (max(sampler.peak, before) - before) / MEGABYTE


class _Sampler:
    """Watches the resident memory of a process from a thread."""

    def __init__(self, process: psutil.Process, period: float) -> None:
        self.peak, self._period = 0, period
        self._process = process
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._process.memory_info().rss)
            if self._done.wait(self._period):
                return
