"""The matrix product of a convolution over taps, image by image: a processor's cache holds one image's neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dino_uad.heads.spatial_ar.gather import Taps, shifted, shifted_back
from dino_uad.products import linear


def tap_product(tokens: Tensor, weight: Tensor, bias: Tensor, offsets: Taps) -> Tensor:
    """``linear(gather(tokens, offsets), weight, bias)`` without the neighbours of all images in memory.

    Args:
        tokens: ``[B,h,w,C]``.
        weight: ``[K,T*C]`` of their dtype.
        bias: ``[K]``.
        offsets: ``T`` (row, column) offsets.

    Returns:
        ``[B,h,w,K]``.
    """
    return _TapProduct.apply(tokens, weight, bias, offsets)


class _TapProduct(torch.autograd.Function):
    """Neighbours are gathered again for the gradients, which is faster than writing and reading them all."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, bias: Tensor, offsets: Taps) -> Tensor:
        ctx.save_for_backward(tokens, weight)
        ctx.offsets = offsets
        return torch.cat([linear(shifted(one, offsets), weight, bias) for one in tokens.split(1)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        tokens, weight = ctx.saved_tensors
        of_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        of_tokens = []
        for one, slope in zip(tokens.split(1), gradient.split(1), strict=True):
            neighbours = shifted(one, ctx.offsets)
            of_weight += linear(slope.flatten(0, -2).T, neighbours.flatten(0, -2).T)
            if ctx.needs_input_grad[0]:
                of_tokens.append(shifted_back(linear(slope, weight.T), ctx.offsets))
        of_bias = gradient.flatten(0, -2).sum(dim=0)
        return torch.cat(of_tokens) if of_tokens else None, of_weight.to(weight.dtype), of_bias, None
