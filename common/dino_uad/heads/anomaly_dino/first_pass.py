"""Fast, coarse similarities of queries to a bank, with a proven bound of their error.

``|q·b − q'·b'| ≤ |q − q'| |b'| + |q| |b − b'|`` for unit vectors and their roundings: what is farther below the best
than the bound allows can be left out of a search without looking at it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.processor import fast_bfloat16, int8_range, multiplies_int8

SLAB = 512  # groups compared by one product: it and the running maximum stay in the processor's cache
GROUP = 16  # consecutive bank rows that share one running maximum

_TINY = torch.finfo(torch.float32).tiny
_LEAST = -(2**31)  # of no row
_SUMS = 1e-4  # covers the accumulation of a product in float32


class Bfloat16Pass:
    """Products of bfloat16.

    Attributes:
        error: ``[Q]`` absolute part of the bound.
        relative: part of the bound relative to the similarity.
    """

    name = "products of bfloat16"
    relative = torch.finfo(torch.bfloat16).eps / 2

    def __init__(self, queries: Tensor) -> None:
        low = queries.bfloat16()
        self.error = ((queries - low.float()).norm(dim=1) + self.relative + _SUMS) * (1 + 4 * self.relative)
        self._transposed = low.T.contiguous()

    def maxima(self, bank: Tensor) -> Iterator[tuple[int, Tensor]]:
        """For each section of the bank its start and, ``[n,Q]``, the largest similarity in each group of rows.

        Group ``i`` is ``GROUP`` rows from ``start + i * GROUP`` on; a negative largest similarity is given as 0. The
        tensor is overwritten by the next section.
        """
        exact = torch.empty(SLAB, bank.shape[1])
        rows = torch.empty_like(exact, dtype=torch.bfloat16)
        product = torch.empty(SLAB, self._transposed.shape[1], dtype=torch.bfloat16)
        largest = torch.empty_like(product)
        bits = largest.view(torch.int16), product.view(torch.int16)
        for start in range(0, len(bank), SLAB * GROUP):
            largest.zero_()
            for slab in _slabs(bank[start : start + SLAB * GROUP]):
                n = len(slab)
                exact[:n].copy_(slab)
                norm = exact[:n].norm(dim=1, keepdim=True).clamp_min_(_TINY)
                rows[:n].copy_(exact[:n].mul_(norm.reciprocal_()))
                torch.mm(rows[:n], self._transposed, out=product[:n])
                # Bit patterns of non-negative floats are ordered like integers, whose maximum takes half the time.
                torch.maximum(bits[0][:n], bits[1][:n], out=bits[0][:n])
            yield start, largest


class Int8Pass:
    """Products of 8-bit integers, in steps of a size that each query and each section of the bank has of its own.

    The rounding errors of the rows are measured, those that have been seen: :attr:`error` grows as sections pass.

    Attributes:
        error, relative: as of :class:`Bfloat16Pass`.
    """

    name = "products of 8-bit integers"
    relative = 0.0

    def __init__(self, queries: Tensor) -> None:
        step = queries.abs().amax(dim=1, keepdim=True).clamp_min(_TINY) / int8_range()
        low = (queries / step).round_()
        self._query_error = (queries - low * step).norm(dim=1) + 1e-5
        self._step = step.T
        self._transposed = low.to(torch.int8).T.contiguous()
        self.error = self._query_error
        # Without VNNI, oneDNN prepares the queries anew in each product, which takes as long as 80 rows.
        self._slab = SLAB if int8_range() == 127 else 4 * SLAB

    def maxima(self, bank: Tensor) -> Iterator[tuple[int, Tensor]]:
        """As :meth:`Bfloat16Pass.maxima`, without the exception for negative ones."""
        exact = torch.empty(self._slab, bank.shape[1])
        low = torch.empty_like(exact, dtype=torch.int8)
        product = torch.empty(self._slab, self._transposed.shape[1], dtype=torch.int32)
        largest = torch.empty_like(product)
        worst = 0.0
        for start in range(0, len(bank), self._slab * GROUP):
            section = bank[start : start + self._slab * GROUP]
            norms, step = _norms_and_step(section, exact)
            largest.fill_(_LEAST)
            for slab, norm in zip(_slabs(section), norms, strict=True):
                n = len(slab)
                in_steps = exact[:n].copy_(slab).mul_((norm * step).reciprocal_()[:, None])
                low[:n].copy_(in_steps.round())
                torch._int_mm(low[:n], self._transposed, out=product[:n])
                torch.maximum(largest[:n], product[:n], out=largest[:n])
                worst = max(worst, step * float(in_steps.sub_(low[:n]).norm(dim=1).max()))
            # |b'| is at most 1 and the rounding error.
            self.error = self._query_error * (1 + worst) + worst
            yield start, largest.float().mul_(self._step * step)


def _norms_and_step(section: Tensor, exact: Tensor) -> tuple[list[Tensor], float]:
    """Norms of the rows of each slab of a section, and the step by which its unit rows are quantised to 8 bits."""
    norms, highest = [], 0.0
    for slab in _slabs(section):
        rows = exact[: len(slab)].copy_(slab)
        norms.append(rows.norm(dim=1).clamp_min_(_TINY))
        highest = max(highest, float((rows.abs_().amax(dim=1) / norms[-1]).max()))
    return norms, max(highest, _TINY) / 127


FirstPass = Bfloat16Pass | Int8Pass


@cache
def fastest(channels: int, scan: Callable[[Tensor, Tensor, int], Any]) -> type[FirstPass] | None:
    """Return the pass that is fastest here over a small bank; None where a plain scan of it is faster.

    What a processor multiplies fast depends on more than its instructions, so it is measured, once per process.
    """
    device = torch.device("cpu")
    passes = [Bfloat16Pass] if fast_bfloat16(device) else []
    passes += [Int8Pass] if multiplies_int8(device) else []
    queries = functional.normalize(torch.randn(1024, channels), dim=1)
    bank = (queries * 32767).to(torch.int16).repeat(4, 1)
    times = {one: _seconds(lambda one=one: list(one(queries).maxima(bank))) for one in passes}
    best = min(times, key=times.__getitem__, default=None)
    # A second pass follows.
    return best if best and times[best] < 0.8 * _seconds(lambda: scan(queries, bank, 1)) else None


def _seconds(call: Callable[[], Any]) -> float:
    """Seconds of the faster of two calls, after one warm-up."""
    call()
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _slabs(section: Tensor) -> Iterator[Tensor]:
    """Yield the first row of every group of a section, then the second of every group, and so on: ``[n,C]`` each."""
    return (section[offset::GROUP] for offset in range(GROUP) if offset < len(section))
