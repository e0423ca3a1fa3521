"""Interleaved timing: variants take turns, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import torch

from dino_uad import parallel
from dino_uad.bench.settings import Settings
from dino_uad.measure import Call, synchronize

SHORTEST_RUN = 0.05  # seconds; shorter calls are repeated within a run, as clocks and caches disturb them
MOST_CALLS = 200


@dataclass(frozen=True)
class Timing:
    """Seconds per call of one variant, one entry a run.

    Attributes:
        wall: elapsed time.
        cpu: processor time of all threads of this process; on CUDA that of the host.
        calls: calls in each run.
    """

    wall: list[float]
    cpu: list[float]
    calls: int = 1

    @property
    def wall_median(self) -> float:
        return median(self.wall)

    @property
    def cpu_median(self) -> float:
        return median(self.cpu)


def interleave(variants: Mapping[str, Call], settings: Settings) -> dict[str, Timing]:
    """Warm every variant up, then time them in turn, A B A B ..., ``settings.repeats`` times.

    On CUDA the clock is read when the device has finished.
    """
    calls = {name: _calls_per_run(call, settings.device) for name, call in variants.items()}
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for _ in range(settings.repeats):
        for name, call in variants.items():
            runs[name].append(_run(call, calls[name], settings.device))
    return {
        name: Timing([wall for wall, _ in pairs], [cpu for _, cpu in pairs], calls[name])
        for name, pairs in runs.items()
    }


def _calls_per_run(call: Call, device: torch.device) -> int:
    """Warm up, and count the calls that fill a run; ranks do as the first one finds, or they would wait for ever.

    The first call on a GPU also loads kernels, and may take far longer than the second.
    """
    seconds = _first_rank(_run(call, 1, device)[0], device)
    if seconds < 10 * SHORTEST_RUN or device.type == "cuda":
        seconds = _first_rank(_run(call, 1, device)[0], device)
    return min(MOST_CALLS, max(1, math.ceil(SHORTEST_RUN / max(seconds, 1e-9))))


def _first_rank(seconds: float, device: torch.device) -> float:
    return parallel.broadcast(torch.tensor(seconds, dtype=torch.float64, device=device)).item()


def _run(call: Call, calls: int, device: torch.device) -> tuple[float, float]:
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    synchronize(device)
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls
