"""Upper bounds of the similarity of queries to groups of rows, from fast and coarse products.

``|q·b − q'·b'| ≤ |q − q'| |b'| + |q| |b − b'|`` for unit vectors and their roundings: the product of the roundings and
this much more is a bound, and a group whose bound is below what a query has already found can be left out of its search
without looking at it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.processor import fast_bfloat16, int_mm_is_fast, multiplies_int8

GROUP = 4  # consecutive bank rows that share one bound
SLAB = 512  # bank rows of one product, so that all arrays are of a size that the C library keeps

_TINY = torch.finfo(torch.float32).tiny
_EXACT = 64  # how large a factor of 8 bits may be without VNNI, see _int8_products
_SUMS = 1e-4  # covers the accumulation of a product in float32


class Bfloat16Pass:
    """Products of bfloat16 with unit queries ``[Q,C]``.

    Attributes:
        slab: how many rows of the bank to bound at a time, at most.
    """

    name = "products of bfloat16"

    def __init__(self, queries: Tensor) -> None:
        low = queries.bfloat16()
        relative = torch.finfo(torch.bfloat16).eps / 2
        self._error = ((queries - low.float()).norm(dim=1) + relative + _SUMS) * (1 + 4 * relative)
        self._more = 1 + 2 * relative  # what the rounding of the product itself can take away
        self._transposed = low.T.contiguous()
        self.slab = SLAB
        self._product = torch.empty(self.slab, len(queries), dtype=torch.bfloat16)

    def bounds(self, rows: Tensor) -> Tensor:
        """Bounds ``[n,Q]`` for unit rows ``[n * GROUP,C]``, at most ``slab`` of them; none is negative."""
        product = torch.mm(rows.bfloat16(), self._transposed, out=self._product[: len(rows)])
        # Bit patterns of non-negative floats are ordered like integers, whose maximum takes half the time.
        largest = _group_maxima(product.view(torch.int16)).clamp_min_(0).view(torch.bfloat16)
        return largest.float().mul_(self._more).add_(self._error)


class Int8Pass:
    """Products of 8-bit integers, in steps of a size that each query and each slab of the bank has of its own.

    Attributes:
        slab: as of :class:`Bfloat16Pass`.
    """

    name = "products of 8-bit integers"

    def __init__(self, queries: Tensor) -> None:
        step = queries.abs().amax(dim=1, keepdim=True).clamp_min(_TINY) / (127 if int_mm_is_fast() else _EXACT)
        low = (queries / step).round_()
        self._error = (queries - low * step).norm(dim=1) + 1e-5
        self._step = step.T
        self._products = _int8_products(low.to(torch.int8))
        self.slab = SLAB

    def bounds(self, rows: Tensor) -> Tensor:
        """As :meth:`Bfloat16Pass.bounds`, also negative ones."""
        step = max(float(rows.abs().amax()), _TINY) / 127
        in_steps = rows / step
        low = in_steps.round()
        product = self._products(low)
        worst = step * float(in_steps.sub_(low).norm(dim=1).max())
        # |b'| is at most 1 and the rounding error.
        return _group_maxima(product).float().mul_(self._step * step).add_(self._error * (1 + worst) + worst)


def _int8_products(second: Tensor) -> Callable[[Tensor], Tensor]:
    """``first -> first @ second.T`` of whole numbers, ``[n,C]`` within ±127 in float32 and ``[Q,C]`` of 8 bits.

    torch's own product of 8-bit integers needs VNNI. The one of its quantized layers is oneDNN's on any processor; its
    first factor has no sign, and without VNNI its second is exact up to 64, as 2 · 255 · 64 are less than 2¹⁵.
    """
    if int_mm_is_fast():
        transposed, product = second.T.contiguous(), torch.empty(SLAB, len(second), dtype=torch.int32)
        return lambda first: torch._int_mm(first.to(torch.int8), transposed, out=product[: len(first)])
    packed = torch.ops.onednn.qlinear_prepack(second, None)
    scales, zeros = torch.ones(len(second)), torch.zeros(len(second), dtype=torch.long)
    plain = (packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "")
    return lambda first: torch.ops.onednn.qlinear_pointwise((first + 128).to(torch.uint8), 1.0, 128, *plain)


FirstPass = Bfloat16Pass | Int8Pass


def _group_maxima(product: Tensor) -> Tensor:
    return product.view(-1, GROUP, product.shape[1]).amax(dim=1)


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
    times = {one: _seconds(partial(_all_bounds, one(queries), bank)) for one in passes}
    best = min(times, key=times.__getitem__, default=None)
    # Candidates are scored then.
    return best if best and times[best] < 0.8 * _seconds(lambda: scan(queries, bank, 1)) else None


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


def unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 unit vectors of bank rows ``[n,C]``, filled up with zeros to whole groups, and the ``[n]`` norms."""
    vectors = rows.new_zeros(-(-len(rows) // GROUP) * GROUP, rows.shape[1], dtype=torch.float32)
    vectors[: len(rows)] = rows
    norms = vectors.norm(dim=1).clamp_min_(_TINY)
    return vectors.div_(norms[:, None]), norms[: len(rows)]
