"""Patches that do not count: which to learn from, to average over, and what score they get."""

from __future__ import annotations

import torch
from torch import Tensor


def nonempty_mask(mask: Tensor | None, embeddings: Tensor) -> Tensor:
    """``[B,1,h,w]`` bool mask of ``[B,C,h,w]`` embeddings; images without any foreground, or no mask, keep all."""
    if mask is None:
        return torch.ones_like(embeddings[:, :1], dtype=torch.bool)
    if mask.shape != embeddings[:, :1].shape:
        expected = tuple(embeddings[:, :1].shape)
        raise ValueError(f"foreground mask has shape {tuple(mask.shape)}, expected {expected}: reduce it to patches")
    mask = mask.bool()
    return mask | ~mask.any(dim=3, keepdim=True).any(dim=2, keepdim=True)


def fill_background(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Give the masked patches of ``[B,1,h,w]`` scores the lowest score of their image's foreground.

    They are then never the most anomalous and, unlike a constant such as 0, make no step at the border of the
    foreground that upsampling and smoothing would carry into it. An image without foreground keeps its scores.
    """
    if mask is None:
        return scores
    mask = nonempty_mask(mask, scores)
    lowest = scores.masked_fill(~mask, torch.inf).amin(dim=(2, 3), keepdim=True)
    return torch.where(mask, scores, lowest)


def patch_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the patches of each image, ``[B,1,h,w]`` and a bool mask to ``[B]``; 0 for an image without patches."""
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    return torch.where(mask, values, 0).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3)).clamp_min(1)
