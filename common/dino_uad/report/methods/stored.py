"""The training image that something in a head was made from, where it can be had and proves to be the one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dino_uad.report.methods.section import MethodContext

SAME_VECTOR = 0.99
"""Cosine above which an embedding is the stored one; half precision and another batch size change it by 1e-3."""


def training_image(context: MethodContext, index: int) -> Tensor | None:
    """``[C,H,W]`` of one image of the fit, None if it cannot be had."""
    if context.training is None or not 0 <= index < len(context.training):
        return None
    image = context.training.image(index)
    return image if image is not None and tuple(image.shape[-2:]) == context.network.image_size else None


def cosine(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a.float().flatten(), b.float().flatten(), dim=0))
