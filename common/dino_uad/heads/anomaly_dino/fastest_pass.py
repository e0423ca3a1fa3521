"""Which coarse products are fast on this processor, by trying them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.heads.anomaly_dino import folded_pass
from dino_uad.heads.anomaly_dino.first_pass import Bfloat16Pass, FirstPass, Int8Pass, unit
from dino_uad.heads.anomaly_dino.folded_pass import FoldedPass
from dino_uad.processor import fast_bfloat16, multiplies_int8

Scan = Callable[[Tensor, Tensor, int], Any]

QUERIES = 1024
_DEVICE = torch.device("cpu")


class Way(NamedTuple):
    """A first pass to search by.

    Attributes:
        name: for people.
        queries: how many to search for together; bounds every buffer.
        first: makes the pass of unit queries ``[Q,C]``; a folded one needs directions, too.
    """

    name: str
    queries: int
    first: Callable[..., FirstPass]


_BFLOAT16 = Way("products of bfloat16", QUERIES, Bfloat16Pass)
_INT8 = Way("products of 8-bit integers", QUERIES, Int8Pass)
# Folding a row costs as much as multiplying it with as many queries as there are directions.
_FOLDED = Way("float32 products along principal directions", 4 * QUERIES, FoldedPass)


def fastest(queries: Tensor, bank: Tensor, scan: Scan) -> Way | None:
    """The fastest way that suits these queries ``[Q,C]`` and this bank; None where a plain scan is faster."""
    for way in _faster_than(scan, queries.shape[1]):
        if way is not _FOLDED:
            return way
        directions = folded_pass.suiting(queries, bank)
        if directions is not None:
            return way._replace(first=partial(FoldedPass, directions=directions))
    return None


@cache
def _faster_than(scan: Scan, channels: int) -> list[Way]:
    """The ways whose first pass is faster than a scan over a small bank, the fastest first.

    What a processor multiplies fast depends on more than its instructions, so it is measured, once per process.
    """
    queries = functional.normalize(torch.randn(QUERIES, channels), dim=1)
    bank = (queries * 32767).to(torch.int16).repeat(4, 1)
    tried = [_BFLOAT16] if fast_bfloat16(_DEVICE) else []
    tried += [_INT8] if multiplies_int8(_DEVICE) else []
    times = [(_seconds(partial(_all_bounds, way.first(queries), bank)), way) for way in tried]
    if channels >= folded_pass.CHANNELS:
        folded = FoldedPass(queries, folded_pass.directions(queries))
        times.append((_seconds(partial(_all_bounds, folded, bank)), _FOLDED))
    most = 0.8 * _seconds(lambda: scan(queries, bank, 1))  # candidates are scored then
    return [way for seconds, way in sorted(times, key=lambda one: one[0]) if seconds < most]


def _all_bounds(first: FirstPass, bank: Tensor) -> None:
    for slab in bank.split(first.slab):
        first.bounds(unit(slab)[0])


def _seconds(call: Callable[[], Any]) -> float:
    """Seconds of the faster of two calls, after one warm-up."""
    call()
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
