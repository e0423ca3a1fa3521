"""Axial rotary position embedding of DINOv3 (Siméoni et al. 2025, sec. 3.2; RoPE: Su et al. 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def rope_periods(head_dim: int) -> Tensor:
    """Periods ``100^(4i/head_dim)``, ``[head_dim/4]``, that DINOv3 was trained with."""
    return 100.0 ** (torch.arange(head_dim // 4, dtype=torch.float32) * 4 / head_dim)


class RopeEmbedding(nn.Module):
    """Rotation angles of a grid of patches; ``periods`` is a buffer so that the checkpoint's own values are used.

    Args:
        head_dim: channels of one attention head, a multiple of 4 (a quarter for each of sin/cos × row/column).
    """

    periods: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        if head_dim % 4:
            raise ValueError(f"axial RoPE needs a head dimension that is a multiple of 4, got {head_dim}")
        self.register_buffer("periods", rope_periods(head_dim))

    def forward(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Sine and cosine tables, each ``[rows*columns, head_dim]``, one row per patch in row-major order.

        Patch centres are scaled to [-1, 1] for each axis on its own, whatever the aspect ratio.
        """
        periods = self.periods.float()
        axes = [2 * (torch.arange(n, device=periods.device) + 0.5) / n - 1 for n in (rows, columns)]
        centres = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)
        angles = (2 * math.pi * centres[:, :, None] / periods).flatten(1).repeat(1, 2)
        return angles.sin(), angles.cos()


def rotate(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """Rotate queries or keys ``[B,heads,N,head_dim]`` by the tables ``[N,head_dim]``, in their precision."""
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat((-second, first), dim=-1) * sin.to(x.dtype)
