"""Weights in few bits: how a backbone ships inside the package, in less than half of half precision.

A row of a matrix (an output channel) has one scale, and of each value ``round(value / scale)``, as in symmetric integer
quantisation (Jacob et al. 2018, section 2.1); these levels are Huffman coded, since small ones are frequent (Han et al.
2016, section 4). The weights are unpacked when they are read and the network computes in floating point: this saves
room, not time.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

LARGEST_IN_BLOCKS = 42
"""Largest level of a matrix of a block: 5.5 bits once they are coded."""
LARGEST = 127
"""Largest level of all other tensors, such as position embeddings, whose rounding error reaches every block."""
SCALE, SHAPE = ".scale", ".shape"
"""Suffixes of the keys that hold the scales and the shape of a packed tensor."""


def is_packed(tensor: Tensor) -> bool:
    """Whether a tensor is packed row by row; others are stored in half precision."""
    return tensor.ndim >= 2 and tensor.shape[-1] % 8 == 0


def levels(name: str, tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Levels ``[...,n]`` of a packed tensor's rows, as float32, and their scales ``[...,1]``."""
    largest = LARGEST_IN_BLOCKS if name.startswith("blocks.") else LARGEST
    scale = tensor.float().abs().amax(dim=-1, keepdim=True) / largest
    scale = torch.where(scale == 0, 1, scale)
    return (tensor.float() / scale).round(), scale


def rounded(name: str, tensor: Tensor) -> Tensor:
    """Round a tensor as :func:`pack_state` does if it is packed; others are returned as they are."""
    if not is_packed(tensor):
        return tensor
    rows, scale = levels(name, tensor)
    return rows * scale


def pack_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pack what has rows of a multiple of 8 values; everything else goes to half precision.

    Args:
        state: finite float tensors by name.

    Returns:
        By name half tensors, or the coded levels as bytes and, under ``NAME.scale`` and ``NAME.shape``, what is needed
        to read them.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in sorted(state.items()):
        if not is_packed(tensor):
            packed[name] = tensor.half().contiguous()
            continue
        rows, packed[name + SCALE] = levels(name, tensor)
        coder = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
        coded = coder.compress(rows.to(torch.int8).cpu().numpy().tobytes()) + coder.flush()
        packed[name] = torch.frombuffer(bytearray(coded), dtype=torch.uint8)
        packed[name + SHAPE] = torch.tensor(tensor.shape)
    return packed


def unpack_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`pack_state` to half a level; a state that holds nothing packed comes back as it is.

    Raises:
        ValueError: bytes that are not the levels of a tensor of their shape.
    """
    unpacked = {}
    for name, tensor in state.items():
        if name + SHAPE in state and name + SCALE in state:
            shape = state[name + SHAPE].tolist()
            tensor = _decoded(name, tensor, shape).float() * state[name + SCALE]
        if not name.endswith((SCALE, SHAPE)):
            unpacked[name] = tensor
    return unpacked


def _decoded(name: str, coded: Tensor, shape: list[int]) -> Tensor:
    expected = torch.Size(shape).numel()
    try:
        decoder = zlib.decompressobj()
        content = decoder.decompress(coded.numpy().tobytes(), max(expected, 1))
    except zlib.error as error:
        raise ValueError(f"packed weights {name}: {error}; expected the levels of a tensor {shape}") from error
    if len(content) != expected:
        raise ValueError(f"packed weights {name}: found {len(content)} levels, expected {expected} for {shape}")
    return torch.frombuffer(bytearray(content), dtype=torch.int8).reshape(shape)
