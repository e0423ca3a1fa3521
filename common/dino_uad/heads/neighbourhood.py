"""What a patch shares with its neighbours: PatchCore's local averaging (Roth et al., CVPR 2022, sec. 3.1)."""

from __future__ import annotations

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
    return _box_sum(maps, size).div_(_box_sum(maps.new_ones(1, 1, *maps.shape[2:]), size))


def _box_sum(maps: Tensor, size: int) -> Tensor:
    total = maps
    for axis in (2, 3):
        part, total, length = total, total.clone(), maps.shape[axis]
        for step in range(1, min(size // 2, length - 1) + 1):
            rest = length - step
            total.narrow(axis, step, rest).add_(part.narrow(axis, 0, rest))
            total.narrow(axis, 0, rest).add_(part.narrow(axis, step, rest))
    return total


def neighbourhood_mean(embeddings: Tensor, size: int) -> Tensor:
    """Embeddings ``[B,C,h,w]`` scaled to length 1 and averaged over ``size`` × ``size`` patches; as they are for 1."""
    return embeddings if size == 1 else box_mean(F.normalize(embeddings.float(), dim=1), size)
