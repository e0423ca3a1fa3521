"""Percentile bootstrap of metrics that are functions of sums over images, drawing whole images or patients.

Pixels of an image, and slices of a patient, are not independent, so the unit that is drawn with replacement is the
group an image belongs to: its patient where one is known, else the image itself (Efron & Tibshirani, An Introduction to
the Bootstrap, 1993, ch. 8 and 13). All metrics here depend on the drawn units only through sums, hence a sample is the
number of times each unit was drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from dino_uad.parallel import gather_rows

REPLICATES_AT_A_TIME = 64
FEWEST = 2
"""Units needed for an interval: of one unit, every sample is the same."""
Group = int | str | Tensor
"""What an image belongs to, such as a patient id."""


def drawn_times(units: int, replicates: int, seed: int) -> Iterator[Tensor]:
    """How often each unit is drawn, float64 ``[R,units]``, for ``replicates`` samples in blocks of R."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, replicates, REPLICATES_AT_A_TIME):
        size = min(REPLICATES_AT_A_TIME, replicates - start)
        drawn = torch.randint(max(units, 1), (size, units), generator=generator)
        times = torch.zeros(size, units, dtype=torch.float64)
        yield times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))


def percentile_intervals(
    metrics: Callable[[Tensor], Mapping[str, Tensor]],
    units: int,
    replicates: int,
    seed: int,
    confidence: float,
    device: torch.device | str,
) -> dict[str, float]:
    """``<name>_low`` and ``<name>_high`` of every metric.

    Args:
        metrics: from the times ``[R,units]`` each unit is drawn to the R values of each metric; NaN values, of samples
            without an anomaly for instance, are left out.
        units: number of units; with fewer than :data:`FEWEST` every interval is NaN.
        replicates: number of bootstrap samples.
        seed: of the generator that draws them.
        confidence: coverage of the interval.
        device: where the metrics are computed.
    """
    blocks = [metrics(times.to(device)) for times in drawn_times(units, replicates, seed)]
    tail = (1 - confidence) / 2
    result = {}
    for name in blocks[0]:
        values = torch.cat([block[name] for block in blocks])
        # One NaN for all: CUDA sorts that of 0 / 0, which has a sign, before all numbers, and quantiles would be NaN.
        values = values.where(~values.isnan() & (units >= FEWEST), torch.nan)
        low, high = values.nanquantile(values.new_tensor([tail, 1 - tail])).tolist()
        result |= {f"{name}_low": low, f"{name}_high": high}
    return result


def why_undefined(units: int, kind: str) -> str:
    """What to say of intervals that are NaN, of ``pixels`` or ``images``."""
    if units < FEWEST:
        return f"found {units} groups of images (patients), expected at least {FEWEST} to draw from"
    return f"no bootstrap sample held both normal and anomalous {kind}"


def group_keys(groups: Sequence[Group], images: int) -> list[int]:
    """A number for each group that is the same in every process; ValueError unless there is one for each image."""
    if len(groups) != images:
        raise ValueError(f"found {len(groups)} group ids for {images} images, expected one per image")
    return [
        int.from_bytes(hashlib.sha256(group.encode("utf-8", "surrogateescape")).digest()[:7], "big")
        if isinstance(group, str)
        else int(group)
        for group in groups
    ]


def gather_units(keys: Sequence[int], device: torch.device | str) -> tuple[int, Tensor]:
    """Number of different keys over all processes, and the place of each key among them, ``[n]`` in rank order."""
    gathered = gather_rows(torch.tensor(keys, dtype=torch.int64, device=device))
    unique, place = gathered.unique(return_inverse=True)
    return len(unique), place
