"""Made-up inputs with the statistics that speed depends on, so that a benchmark needs neither data nor weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# Of DINOv2 ViT-S/14's last block on FLAIR slices of 448 px: the mean length; of rows brought to length 1, shares of the
# squared length; and the sorted variances fall like 1/i.
LENGTH = 47.0
MEAN, POSITION, IMAGE, REST = 1 / 3, 0.27, 0.08, 0.32
DECAY = 0.5
SMOOTH = 0.6
"""Share of the rest, and of what belongs to a position, that varies slowly over the image."""


def patch_embeddings(images: int, side: int, dim: int = 384, seed: int = 0) -> Tensor:
    """``[images,dim,side,side]`` half-precision embeddings.

    A common mean + what belongs to the position + what belongs to the image + the rest, which neighbours partly share:
    so an image uses few of a mixture's components, and a row has near neighbours in other images.
    """
    rows = EmbeddingRows(side, dim, seed).draw(images)
    return rows.view(images, side, side, dim).permute(0, 3, 1, 2).half().contiguous()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Products of other numbers of threads are rounded differently: two processes would not get one's embeddings."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class EmbeddingRows:
    """A stream of such embeddings as float32 rows, for more of them than fit into memory.

    Args:
        side: patches along an image's edge.
        dim: channels.
        seed: of everything that is drawn.
    """

    @_one_thread()
    def __init__(self, side: int, dim: int = 384, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.side = side
        deviation = torch.arange(1.0, dim + 1).pow(-DECAY)
        basis = torch.linalg.qr(torch.randn(dim, dim, generator=self.generator)).Q
        self.mixing = deviation[:, None] / deviation.norm() * basis
        self.atlas = MEAN**0.5 * basis[0] + POSITION**0.5 * self._field(1)

    @_one_thread()
    def draw(self, images: int) -> Tensor:
        """``[images * side * side, dim]``."""
        rows = self._field(images).mul_(REST**0.5).add_(self.atlas)
        return rows.add_(IMAGE**0.5 * self._vary(images, 1)).mul_(LENGTH).flatten(0, 1)

    def _field(self, images: int) -> Tensor:
        """``[images,side*side,dim]`` of variance 1, part of it smooth."""
        cells = max(2, self.side // 4)
        coarse = self._vary(images, cells, cells).movedim(-1, 1)
        smooth = functional.interpolate(coarse, size=(self.side, self.side), mode="bilinear").flatten(2).mT
        smooth = smooth / smooth.square().sum(2).mean().sqrt()
        return self._vary(images, self.side**2).mul_((1 - SMOOTH) ** 0.5).add_(smooth, alpha=SMOOTH**0.5)

    def _vary(self, *shape: int) -> Tensor:
        return torch.randn(*shape, len(self.mixing), generator=self.generator) @ self.mixing


def head_slices(count: int, size: int) -> Tensor:
    """``[count,1,size,size]`` slices in [0, 1] of one generated FLAIR head (:mod:`dino_uad.demo.phantom`)."""
    from dino_uad.demo import SHAPE, acquire, make_anatomy

    rng = np.random.default_rng(0)
    side = min(size, SHAPE[0])
    anatomy = make_anatomy(rng, (side, side, SHAPE[2]), (225 / side, 225 / side, 5.0))
    volume = torch.from_numpy(acquire(anatomy.signal, anatomy.spacing, rng).astype(np.float32))
    depths = torch.linspace(4, volume.shape[2] - 5, count).round().long()
    slices = volume[:, :, depths].permute(2, 1, 0).flip(1)[:, None]
    return functional.interpolate((slices / slices.amax()).clamp(0, 1), (size, size), mode="bilinear")
