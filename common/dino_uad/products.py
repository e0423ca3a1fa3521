"""Products of float32 matrices by the library that is fast on this processor.

torch multiplies them by Intel's MKL, which uses AVX-512 on Intel's processors only. oneDNN, which torch brings too,
uses it on others as well (``python -m dino_uad bench --rows forward``).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dino_uad.processor import mkl_is_slow
from dino_uad.tracing import is_traced

_SMALL = 1 << 20
"""Multiplications below which a call costs more than its product."""


def recurring(size: int, step: int) -> int:
    """The multiple of ``step`` to which a side of a product is to be filled up so that its shape comes again.

    oneDNN makes a program for each shape, which costs time and memory; for torch's own products it is ``size``.
    """
    return -(-size // step) * step if mkl_is_slow() else size


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``rows @ weight.T + bias``, as :func:`torch.nn.functional.linear`: shapes, dtypes and gradients are the same.

    For shapes that come again (:func:`recurring`): where nearly every product has a shape of its own, oneDNN is slower.

    Args:
        rows: ``[...,C]``.
        weight: ``[K,C]``.
        bias: ``[K]``.

    Returns:
        ``[...,K]``.
    """
    if not _by_onednn(rows, weight):
        return F.linear(rows, weight, bias)
    if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in (rows, weight, bias)):
        return _Linear.apply(rows, weight, bias)
    return _product(rows, weight, bias)


def _by_onednn(rows: Tensor, weight: Tensor) -> bool:
    return (
        not is_traced()  # a graph is for any processor
        and rows.device.type == "cpu"
        and rows.dtype == weight.dtype == torch.float32
        and rows.numel() * len(weight) >= _SMALL
        and mkl_is_slow()
        and not torch.is_autocast_enabled("cpu")
    )


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # What torch's own compiler makes of a linear layer; a 1 × 1 convolution would reach oneDNN too, with copies.
    return torch.ops.mkldnn._linear_pointwise(_dense(rows), _dense(weight), bias, "none", [], "")


def _dense(matrix: Tensor) -> Tensor:
    """Row after row or column after column: for any other order oneDNN has only its slowest product."""
    return matrix if matrix.ndim == 2 and matrix.T.is_contiguous() else matrix.contiguous()


class _Linear(torch.autograd.Function):
    """The product and its gradients, each by :func:`linear`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        flat, flat_rows = grad.flatten(0, -2), rows.flatten(0, -2)
        return (
            linear(grad, weight.T) if wanted[0] else None,
            linear(flat.T, flat_rows.T) if wanted[1] else None,
            flat.sum(dim=0) if wanted[2] else None,
        )
