"""Many small tensors to another device in one copy: each would wait for the one before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def move_together(tensors: Sequence[Tensor], device: torch.device | str) -> list[Tensor]:
    """:func:`packed_on` ``device``, or the tensors themselves if they are there."""
    if not tensors or tensors[0].device == torch.device(device):
        return list(tensors)
    return packed_on(tensors, device)


def packed_on(tensors: Sequence[Tensor], device: torch.device | str) -> list[Tensor]:
    """Copies of tensors of one dtype and device, of any shapes, on ``device``: views of one tensor, in their order."""
    if not tensors:
        return []
    packed = torch.cat([tensor.reshape(-1) for tensor in tensors]).to(device)
    parts = packed.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
