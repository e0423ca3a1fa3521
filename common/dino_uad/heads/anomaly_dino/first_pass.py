"""Upper bounds of the similarity of queries to rows, from fast and coarse products.

``|q·b − q'·b'| ≤ |q − q'| |b'| + |q| |b − b'|`` for unit vectors and their roundings: the product of the roundings and
this much more is a bound, and a row whose bound is below what a query has already found can be left out of its search
without looking at it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.processor import int_mm_is_fast

GROUP = 4  # bank rows whose largest product is looked at first
SLAB = 512  # bank rows of one product, so that all arrays are of a size that the C library keeps

_TINY = torch.finfo(torch.float32).tiny
_EXACT = 64  # how large a factor of 8 bits may be without VNNI, see _int8_products
_SUMS = 1e-4  # covers the accumulation of a product in float32


@dataclass(frozen=True)
class Bounds:
    """Bounds of the similarities of ``n`` rows to ``Q`` queries: ``product * scale + error``.

    Attributes:
        product: ``[n,Q]``, of any dtype; ``n`` is a multiple of ``GROUP``. The next product may be written over it.
        scale: positive, one or ``[Q]``.
        error: ``[Q]``.
    """

    product: Tensor
    scale: Tensor | float
    error: Tensor

    def reaching(self, limit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The bounds that are at least ``limit`` ``[Q]``: their values, queries and rows, ``[m]`` each."""
        hits = (_group_maxima(self.product) >= (limit - self.error) / self.scale).nonzero()
        groups = len(self.product) // GROUP
        row = hits[:, :1] + torch.arange(0, GROUP * groups, groups)
        query = hits[:, 1:].expand_as(row).flatten()
        row = row.flatten()
        product = self.product.flatten().index_select(0, row * self.product.shape[1] + query)
        scale = self.scale[query] if isinstance(self.scale, Tensor) else self.scale
        bound = product.float() * scale + self.error[query]
        found = (bound >= limit[query]).nonzero()[:, 0]
        return bound[found], query[found], row[found]


def _group_maxima(product: Tensor) -> Tensor:
    """``[n/GROUP,Q]`` of every so many rows; of bfloat16, 0 where none is positive."""
    groups = product.view(GROUP, -1, product.shape[1])
    if product.dtype != torch.bfloat16:
        return groups.amax(dim=0)
    # Bit patterns of non-negative floats are ordered like integers, whose maximum takes half the time.
    return groups.view(torch.int16).amax(dim=0).clamp_min_(0).view(torch.bfloat16).float()


class FirstPass(Protocol):
    """What bounds the similarities of unit queries ``[Q,C]`` that it was made of.

    Attributes:
        slab: how many rows of the bank to bound at a time, at most.
    """

    slab: int

    def bounds(self, rows: Tensor) -> Bounds:
        """Bounds for unit rows ``[n,C]``, whole groups and at most ``slab``."""


class Bfloat16Pass(FirstPass):
    """Products of bfloat16."""

    def __init__(self, queries: Tensor) -> None:
        low = queries.bfloat16()
        relative = torch.finfo(torch.bfloat16).eps / 2
        error = ((queries - low.float()).norm(dim=1) + relative + _SUMS) * (1 + 4 * relative)
        self._error = error + 2 * relative  # what the rounding of the product itself can take away
        self._transposed = low.T.contiguous()
        self.slab = SLAB
        self._product = torch.empty(self.slab, len(queries), dtype=torch.bfloat16)

    def bounds(self, rows: Tensor) -> Bounds:
        product = torch.mm(rows.bfloat16(), self._transposed, out=self._product[: len(rows)])
        return Bounds(product, 1.0, self._error)


class Int8Pass(FirstPass):
    """Products of 8-bit integers, in steps of a size that each query and each slab of the bank has of its own."""

    def __init__(self, queries: Tensor) -> None:
        step = queries.abs().amax(dim=1, keepdim=True).clamp_min(_TINY) / (127 if int_mm_is_fast() else _EXACT)
        low = (queries / step).round_()
        self._error = (queries - low * step).norm(dim=1) + 1e-5
        self._step = step[:, 0]
        self._products = _int8_products(low.to(torch.int8))
        self.slab = SLAB

    def bounds(self, rows: Tensor) -> Bounds:
        step = max(float(rows.abs().amax()), _TINY) / 127
        in_steps = rows / step
        low = in_steps.round()
        product = self._products(low)
        worst = step * float(in_steps.sub_(low).norm(dim=1).max())
        # |b'| is at most 1 and the rounding error.
        return Bounds(product, self._step * step, self._error * (1 + worst) + worst)


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


def unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 unit vectors of bank rows ``[n,C]``, filled up with zeros to whole groups, and the ``[n]`` norms."""
    vectors = functional.pad(rows, (0, 0, 0, -len(rows) % GROUP)).to(torch.float32, copy=True)
    norms = vectors.norm(dim=1).clamp_min_(_TINY)
    return vectors.div_(norms[:, None]), norms[: len(rows)]
