"""Pictures of images and of the patches in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from dino_uad.report import panels


def drawn(image: Tensor) -> panels.Rgb:
    """An image ``[C,H,W]`` in the proportions in which the network sees it, which are those of its patches."""
    return panels.grey_rgb(image.float().numpy())


def framed(picture: panels.Rgb, place: tuple[int, int], grid: Sequence[int]) -> panels.Rgb:
    """Outline the patch at ``(row, column)`` of a grid ``(gh, gw)``."""
    mask = np.zeros(tuple(grid), dtype=bool)
    mask[place] = True
    return panels.contours_rgb(picture, None, enlarged(mask, picture.shape))


def enlarged(grid: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Repeat the patches of ``[gh,gw]`` to ``[H,W]``."""
    rows, columns = (np.arange(side) * count // side for side, count in zip(shape, grid.shape, strict=False))
    return grid[rows][:, columns]
