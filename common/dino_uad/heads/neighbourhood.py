"""What a patch shares with its neighbours: PatchCore's local averaging (Roth et al., CVPR 2022, sec. 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dino_uad.tracing import is_traced


def box_mean(maps: Tensor, size: int) -> Tensor:
    """Mean over ``size`` × ``size`` patches of ``[B,C,h,w]`` maps; at the border over those that are there."""
    if size == 1:
        return maps
    maps = maps.float()
    if maps.is_cuda or is_traced():
        return F.avg_pool2d(maps, size, stride=1, padding=size // 2, count_include_pad=False)
    # On a processor the pooling takes far longer.
    return _box_sum(maps, size, (2, 3)).div_(_box_sum(maps.new_ones(1, 1, *maps.shape[2:]), size, (2, 3)))


def _box_sum(maps: Tensor, size: int, axes: tuple[int, int]) -> Tensor:
    total = maps
    for axis in axes:
        part, total, length = total, total.clone(), maps.shape[axis]
        for step in range(1, min(size // 2, length - 1) + 1):
            rest = length - step
            total.narrow(axis, step, rest).add_(part.narrow(axis, 0, rest))
            total.narrow(axis, 0, rest).add_(part.narrow(axis, step, rest))
    return total


def neighbourhood_mean(embeddings: Tensor, size: int) -> Tensor:
    """Embeddings ``[B,C,h,w]`` scaled to length 1 and averaged over ``size`` × ``size`` patches; as they are for 1."""
    if size == 1:
        return embeddings
    if embeddings.is_cuda or is_traced() or embeddings.requires_grad:
        return box_mean(F.normalize(embeddings.float(), dim=1), size)
    n_images, channels, height, width = embeddings.shape
    # Image by image, patch after patch in memory: a batch is too large for a cache, and heads take rows of channels.
    means = embeddings.new_empty(n_images, height, width, channels, dtype=torch.float32)
    counts = _box_sum(means.new_ones(height, width, 1), size, (0, 1))
    for one, mean in zip(embeddings.permute(0, 2, 3, 1), means, strict=True):
        torch.div(_box_sum(F.normalize(one.contiguous().float(), dim=2), size, (0, 1)), counts, out=mean)
    return means.permute(0, 3, 1, 2)
