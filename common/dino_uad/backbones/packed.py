"""Weights in seven bits: how a backbone ships inside the package, in less than half of half precision.

A row of a matrix (an output channel) has one scale, and of each value ``round(value / scale)`` from -63 to 63, as in
symmetric integer quantisation (Jacob et al. 2018, section 2.1). The weights are unpacked when they are read and the
network computes in floating point: this saves room, not time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

BITS = 7
LARGEST = 2 ** (BITS - 1) - 1
SCALE = ".scale"
"""End of the name under which the scales of a packed tensor stand."""


def pack_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pack what has rows of a multiple of 8 values; everything else goes to half precision.

    Args:
        state: finite float tensors by name.

    Returns:
        By name half tensors, or bytes ``[...,7 n / 8]`` for ``[...,n]`` and, under ``NAME.scale``, float32 ``[...,1]``.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in sorted(state.items()):
        if tensor.ndim < 2 or tensor.shape[-1] % 8:
            packed[name] = tensor.half().contiguous()
            continue
        scale = tensor.float().abs().amax(dim=-1, keepdim=True) / LARGEST
        scale[scale == 0] = 1
        levels = (tensor.float() / scale).round().to(torch.int8) + LARGEST
        bits = np.unpackbits(levels.to(torch.uint8).numpy()[..., None], axis=-1)[..., 8 - BITS :]
        packed[name] = torch.from_numpy(np.packbits(bits.reshape(*tensor.shape[:-1], -1), axis=-1))
        packed[name + SCALE] = scale
    return packed


def unpack_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`pack_state` to half a level; a state that holds nothing packed comes back as it is."""
    unpacked = {}
    for name, tensor in state.items():
        scale = state.get(name + SCALE)
        if scale is not None:
            bits = np.unpackbits(tensor.numpy(), axis=-1).reshape(*tensor.shape[:-1], -1, BITS)
            levels = np.packbits(bits, axis=-1)[..., 0] >> (8 - BITS)
            tensor = (torch.from_numpy(levels).float() - LARGEST) * scale
        if not name.endswith(SCALE):
            unpacked[name] = tensor
    return unpacked
