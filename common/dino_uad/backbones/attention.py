"""Softmax attention, by the products that are fast on this processor.

torch's own kernel multiplies by MKL, in bfloat16 no faster than in float32. Where MKL is slow
(:mod:`dino_uad.products`) it makes attention the largest part of a backbone at 448 pixels.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from dino_uad.processor import cores, mkl_is_slow
from dino_uad.products import linear
from dino_uad.tracing import is_traced

_QUERIES = 512
"""Queries that are looked up together: enough that starting a product is cheap, and their weights stay in a cache."""
_WEIGHTS_A_CORE = 1 << 16
"""Weights (queries × keys) of a head for each core below which starting products costs more than it saves. Not for each
thread: two ways round differently, and two ranks with a thread each shall embed as one process with two."""


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention over all keys with the usual scale, ``1/√C`` (Vaswani et al. 2017, equation 1).

    Args:
        q, k, v: queries, keys and values ``[B,H,N,C]`` of ``H`` heads, in any memory order.

    Returns:
        ``[B,N,H*C]`` in the dtype of the operands.
    """
    if _by_products(q, k, v):
        return _in_blocks(q, k, v)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _by_products(q: Tensor, k: Tensor, v: Tensor) -> bool:
    return (
        not is_traced()  # a graph is for any processor
        and q.device.type == "cpu"
        and q.dtype in (torch.float32, torch.bfloat16)
        and q.shape[2] ** 2 >= _WEIGHTS_A_CORE * cores()
        and mkl_is_slow()
        and not (torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad))
    )


def _in_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    n_images, n_heads, n_tokens, channels = q.shape
    result = q.new_empty(n_images, n_tokens, n_heads, channels)
    q, k, v = q.contiguous(), k.float().contiguous(), v.contiguous()
    # What all keys have in common cancels; without it products are smaller, and so is what bfloat16 rounds them by.
    k = (k - k.mean(dim=2, keepdim=True)).mul_(channels**-0.5).to(v.dtype)
    parts = max(1, round(n_tokens / _QUERIES))
    with torch.autocast("cpu", enabled=False):
        for head in product(range(n_images), range(n_heads)):
            blocks = q[head].tensor_split(parts), result.transpose(1, 2)[head].tensor_split(parts)
            for queries, found in zip(*blocks, strict=True):
                weights = linear(queries, k[head])
                torch.softmax(weights, 1, out=weights)
                found.copy_(linear(weights, v[head].T))
    return result.flatten(2)
