"""Made-up inputs with the statistics that speed depends on, so that a benchmark needs neither data nor weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# Of DINOv2 ViT-S/14 patch embeddings of brain slices: mean length 47, and the sorted variances fall like 1/i.
LENGTH = 47.0
DECAY = 0.5
BACKGROUND = 1 / 3
"""Share of positions outside the body, whose embeddings hardly differ between images."""


def patch_embeddings(images: int, side: int, dim: int = 384, seed: int = 0) -> Tensor:
    """``[images,dim,side,side]`` half-precision embeddings: common mean + what belongs to the position + the rest.

    Variances decay along random directions as in real embeddings, and a third of the positions is background, whose
    narrow clusters are what makes a Gaussian mixture numerically hard.
    """
    rows = EmbeddingRows(side * side, dim, seed).draw(images)
    return rows.view(images, side, side, dim).permute(0, 3, 1, 2).half().contiguous()


class EmbeddingRows:
    """A stream of such embeddings as float32 rows, for more of them than fit into memory.

    Args:
        positions: patches in an image.
        dim: channels.
        seed: of everything that is drawn.
    """

    def __init__(self, positions: int, dim: int = 384, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        deviation = torch.arange(1.0, dim + 1).pow(-DECAY)
        basis = torch.linalg.qr(torch.randn(dim, dim, generator=self.generator)).Q
        self.mixing = deviation[:, None] / deviation.norm() * basis
        self.atlas = basis[0] + self._vary(positions)
        inside = torch.rand(positions, 1, generator=self.generator) >= BACKGROUND
        self.spread = torch.where(inside, 0.7, 0.05)
        self.atlas = torch.where(inside, self.atlas, self.atlas[:1])

    def draw(self, images: int) -> Tensor:
        """``[images * positions, dim]``."""
        varied = self._vary(images * len(self.atlas)).view(images, *self.atlas.shape)
        return varied.mul_(self.spread).add_(self.atlas).mul_(LENGTH / 2**0.5).flatten(0, 1)

    def _vary(self, count: int) -> Tensor:
        return torch.randn(count, len(self.mixing), generator=self.generator) @ self.mixing


def head_slices(count: int, size: int, seed: int = 0) -> Tensor:
    """``[count,1,size,size]`` slices in [0, 1] of one generated FLAIR head (:mod:`dino_uad.data.phantom`)."""
    from dino_uad.data.phantom import SHAPE, acquire, make_anatomy

    rng = np.random.default_rng(seed)
    side = min(size, SHAPE[0])
    anatomy = make_anatomy(rng, (side, side, SHAPE[2]), (225 / side, 225 / side, 5.0))
    volume = torch.from_numpy(acquire(anatomy.signal, anatomy.spacing, rng).astype(np.float32))
    depths = torch.linspace(4, volume.shape[2] - 5, count).round().long()
    slices = volume[:, :, depths].permute(2, 1, 0).flip(1)[:, None]
    return functional.interpolate((slices / slices.amax()).clamp(0, 1), (size, size), mode="bilinear")
