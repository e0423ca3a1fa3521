"""The eight rotated views that AnomalyDINO adds of each reference image (WACV 2025, sec. 3.2)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import MapTransform
from torch import Tensor
from torch.nn import functional

ANGLES = tuple(range(0, 360, 45))


def rotate_image(image: Tensor, degrees: float) -> Tensor:
    """Rotate counter-clockwise about the pixel ``(W/2, H/2)``, bilinear, mirrored at the border without the edge.

    OpenCV, with which the published code does this, rounds source coordinates to 1/32 pixel and its versions differ by
    up to 3 grey levels of 255; so does this.

    Args:
        image: ``[C,H,W]`` floating, rows down and columns right.
        degrees: angle.

    Returns:
        ``[C,H,W]``, same dtype.
    """
    height, width = image.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    y, x = torch.meshgrid(
        torch.arange(height, device=image.device) - height / 2,
        torch.arange(width, device=image.device) - width / 2,
        indexing="ij",
    )
    source_x, source_y = cos * x - sin * y + width / 2, sin * x + cos * y + height / 2
    grid = torch.stack([2 * source_x / max(width - 1, 1) - 1, 2 * source_y / max(height - 1, 1) - 1], dim=-1)
    rotated = functional.grid_sample(
        image[None].float(), grid[None].float(), mode="bilinear", padding_mode="reflection", align_corners=True
    )
    return rotated[0].to(image.dtype)


def rotated_views(image: Tensor) -> Tensor:
    """``[C,H,W]`` to the eight rotations ``[8,C,H,W]`` by multiples of 45°, the first unrotated."""
    return torch.stack([image, *(rotate_image(image, angle) for angle in ANGLES[1:])])


class RotatedViewsd(MapTransform):
    """Makes one image dictionary a list of eight, rotated by multiples of 45°; the first is the image itself.

    Args:
        keys: images ``[C,H,W]`` to rotate together.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        turned = {key: rotated_views(torch.as_tensor(data[key])) for key in self.key_iterator(dict(data))}
        return [{**data, **{key: views[i] for key, views in turned.items()}} for i in range(len(ANGLES))]
