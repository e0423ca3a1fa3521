"""Resize pictures and the slices of volumes to the network's input size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.config import KeysCollection
from monai.transforms import Resize, Resized
from monai.transforms.spatial.functional import resize
from torch import Tensor


class InPlaneResize(Resize):
    """Resizes ``[C,H,W]`` or ``[C,H,W,D]`` to ``size`` in the plane; the number of slices stays.

    Args:
        size: height and width, or one number for both.
    """

    def __init__(self, size: Sequence[int] | int) -> None:
        sides = size if isinstance(size, Sequence) else (size, size)
        if len(sides) != 2 or any(not isinstance(side, int) or side < 1 for side in sides):
            raise ValueError(f"image size is {size!r}; expected height and width, two positive whole numbers of pixels")
        self.size = tuple(sides)
        super().__init__(spatial_size=self.size)

    def __call__(self, img: Tensor, mode: str = "bilinear", **kwargs) -> Tensor:
        """Return the resized image; shrinking smooths before it samples, except for nearest neighbours (labels)."""
        if img.ndim not in (3, 4):
            raise ValueError(f"image of shape {list(img.shape)} found; expected [C,H,W] or [C,H,W,D]")
        return resize(
            img,
            (*self.size, *img.shape[3:]),
            mode=mode,
            align_corners=None,
            dtype=torch.float32,
            input_ndim=img.ndim - 1,
            anti_aliasing=not mode.startswith("nearest"),
            anti_aliasing_sigma=None,
            lazy=False,
            transform_info=self.get_transform_info(),
        )


class InPlaneResized(Resized):
    """Dictionary version of :class:`InPlaneResize`, inverted by ``Invertd``.

    Args:
        keys: images and labels.
        spatial_size: height and width, or one number for both.
        mode: interpolation for all keys or for each; ``"nearest"`` for labels.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: Sequence[int] | int,
        mode: Sequence[str] | str = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, spatial_size=1, mode=mode, allow_missing_keys=allow_missing_keys)
        self.resizer = InPlaneResize(spatial_size)
