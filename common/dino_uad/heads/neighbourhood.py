"""What a patch shares with its neighbours: PatchCore's local averaging (Roth et al., CVPR 2022, sec. 3.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def box_mean(maps: Tensor, size: int) -> Tensor:
    """Mean over ``size`` × ``size`` patches of ``[B,C,h,w]`` maps; at the border over those that are there."""
    if size == 1:
        return maps
    return F.avg_pool2d(maps.float(), size, stride=1, padding=size // 2, count_include_pad=False)


def neighbourhood_mean(embeddings: Tensor, size: int) -> Tensor:
    """Embeddings ``[B,C,h,w]`` scaled to length 1 and averaged over ``size`` × ``size`` patches; as they are for 1."""
    return embeddings if size == 1 else box_mean(F.normalize(embeddings.float(), dim=1), size)
