"""The neighbours of every place of an embedding grid, side by side: how a convolution becomes one matrix product."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dino_uad.tracing import is_traced

Taps = tuple[tuple[int, int], ...]


def gather(tokens: Tensor, offsets: Taps) -> Tensor:
    """``[B,h,w,C]`` to ``[B,h,w,T*C]``: the tokens at ``T`` (row, column) offsets from each, 0 outside the grid."""
    return shifted(tokens, offsets) if is_traced() else _Selection.apply(tokens, offsets)


class _Selection(torch.autograd.Function):
    """For a GPU, where a step takes as long as the host needs to start its kernels: one selection of rows.

    The gradient of a token is the sum of its copies', where autograd's own way fills a grid for each of them.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, offsets: Taps) -> Tensor:
        ctx.offsets = offsets
        return _selected(tokens, offsets)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _selected_back(gradient, ctx.offsets), None


def shifted(tokens: Tensor, offsets: Taps) -> Tensor:
    """:func:`gather` by copies of the grid, which a processor makes faster and a graph can hold."""
    height, width = tokens.shape[1:3]
    rows, columns = zip(*offsets, strict=True)
    top, bottom, left, right = max(0, -min(rows)), max(0, *rows), max(0, -min(columns)), max(0, *columns)
    padded = F.pad(tokens, (0, 0, left, right, top, bottom))
    shifted = [padded[:, top + i : top + i + height, left + j : left + j + width] for i, j in offsets]
    return torch.cat(shifted, dim=-1)


def shifted_back(gradient: Tensor, offsets: Taps) -> Tensor:
    """The gradient ``[B,h,w,C]`` of tokens from that of their :func:`shifted` copies, ``[B,h,w,T*C]``."""
    batch, height, width, channels = gradient.shape
    total = gradient.new_zeros(batch, height, width, channels // len(offsets))
    for (i, j), part in zip(offsets, gradient.chunk(len(offsets), dim=-1), strict=True):
        total[:, _within(height, i), _within(width, j)].add_(part[:, _within(height, -i), _within(width, -j)])
    return total


def _within(size: int, offset: int) -> slice:
    """Slice of the indices i in [0, size) with ``0 <= i - offset < size``."""
    return slice(max(0, offset), max(0, size + min(0, offset)))


def _selected(tokens: Tensor, offsets: Taps) -> Tensor:
    batch, height, width, channels = tokens.shape
    places = places_at(height, width, offsets, tokens.device)
    chosen = F.pad(tokens.flatten(1, 2), (0, 0, 0, 1)).index_select(1, places.flatten())
    return chosen.view(batch, height, width, len(offsets) * channels)


def _selected_back(gradient: Tensor, offsets: Taps) -> Tensor:
    batch, height, width, channels = gradient.shape
    count = len(offsets)
    copies = gradient.reshape(batch, height * width * count, channels // count)
    copied = copies_of(height, width, offsets, gradient.device)
    chosen = F.pad(copies, (0, 0, 0, 1)).index_select(1, copied.flatten())
    return chosen.view(batch, height, width, count, channels // count).sum(dim=3)


@lru_cache(maxsize=64)
def places_at(height: int, width: int, offsets: Taps, device: torch.device) -> Tensor:
    """The place ``[h*w,T]`` at each offset from each place, in row-major order; ``h*w`` stands for all outside."""
    moves = torch.tensor(offsets, device=device)
    rows = torch.arange(height, device=device)[:, None, None] + moves[:, 0]
    columns = torch.arange(width, device=device)[:, None] + moves[:, 1]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return torch.where(inside, rows * width + columns, height * width).flatten(0, 1)


@lru_cache(maxsize=64)
def copies_of(height: int, width: int, offsets: Taps, device: torch.device) -> Tensor:
    """The ``T`` copies ``[h*w,T]`` of each place, numbered place by place; ``h*w*T`` where it has none."""
    count = len(offsets)
    copied_to = places_at(height, width, tuple((-row, -column) for row, column in offsets), device)
    numbers = copied_to * count + torch.arange(count, device=device)
    return numbers.clamp(max=height * width * count)
