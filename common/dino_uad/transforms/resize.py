"""Resize pictures and the slices of volumes to the network's input size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Resize, Resized
from monai.transforms.spatial.functional import resize
from monai.transforms.utils import scale_affine
from monai.utils import TraceKeys
from torch import Tensor

from dino_uad.settings import require_size


class InPlaneResize(Resize):
    """Resizes ``[C,H,W]`` or ``[C,H,W,D]`` to ``size`` in the plane; the number of slices stays.

    Volumes are resized slice by slice: smoothing and interpolating a whole one takes 20 times its memory.

    Args:
        size: height and width, or one number for both.
    """

    def __init__(self, size: Sequence[int] | int) -> None:
        self.size = require_size("image size", size if isinstance(size, Sequence) else (size, size))
        super().__init__(spatial_size=self.size)

    def __call__(self, img: Tensor, mode: str = "bilinear", smooth: bool = True, **kwargs) -> Tensor:
        """Return the resized image.

        Shrinking smooths before it samples, except for nearest neighbours (labels) and where ``smooth`` is False.
        """
        if img.ndim not in (3, 4):
            raise ValueError(f"image of shape {list(img.shape)} found; expected [C,H,W] or [C,H,W,D]")
        former, size = tuple(img.shape[1:]), (*self.size, *img.shape[3:])
        plain, smooth = img.as_subclass(Tensor), smooth and not mode.startswith("nearest")
        if img.ndim == 3:
            result = _resize_plane(plain, self.size, mode, smooth)
        else:
            result = torch.empty((img.shape[0], *size), dtype=torch.float32, device=img.device)
            for k in range(img.shape[3]):
                result[..., k] = _resize_plane(plain[..., k], self.size, mode, smooth)
        if not isinstance(img, MetaTensor):
            return result
        traced = self.track_transform_meta(
            img,
            sp_size=size,
            affine=scale_affine(former, size),
            extra_info={"mode": mode},
            orig_size=former,
            transform_info=self.get_transform_info(),
        )
        return MetaTensor(result).copy_meta_from(traced)

    def inverse_transform(self, data: Tensor, transform: dict) -> Tensor:
        """Bring a resized image back to its former size."""
        back = InPlaneResize(tuple(int(side) for side in transform[TraceKeys.ORIG_SIZE][:2]))
        with back.trace_transform(False):
            return back(data, mode=transform[TraceKeys.EXTRA_INFO]["mode"], smooth=False)


def _resize_plane(plane: Tensor, size: tuple[int, int], mode: str, smooth: bool) -> Tensor:
    """MONAI's resizing of a plain ``[C,H,W]``."""
    return resize(
        plane,
        size,
        mode=mode,
        align_corners=None,
        dtype=torch.float32,
        input_ndim=2,
        anti_aliasing=smooth,
        anti_aliasing_sigma=None,
        lazy=False,
        transform_info={},
    ).as_subclass(Tensor)


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
