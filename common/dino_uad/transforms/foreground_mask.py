"""Which pixels, and which patches, belong to the body."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.transforms.utils_morphological_ops import dilate, erode
from torch import Tensor

from dino_uad.settings import require_choice, require_count

METHODS = ("nonzero", "threshold")


class ForegroundMaskd(MapTransform):
    """Adds ``foreground``, that of an image, as bool ``[1,H,W]`` (or ``[1,H,W,D]``, closed slice by slice).

    - ``"nonzero"``: pixels above 0 in any channel, then a morphological closing;
    - ``"threshold"``: pixels above ``threshold``, then the closing.

    An image without foreground gets a mask that is False everywhere: heads take no patch of it, and its map is 0.

    Args:
        keys: the image.
        method: see above.
        threshold: intensity in [0, 1] for ``"threshold"``.
        closing: radius of the closing in pixels; 0 leaves it out.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        method: Literal["nonzero", "threshold"] = "nonzero",
        threshold: float = 0.05,
        closing: int = 3,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys are {self.keys}; expected one image")
        require_choice("method", method, METHODS)
        require_count("closing", closing, 0)
        self.method = method
        self.threshold = float(threshold) if method == "threshold" else 0.0
        self.closing = closing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            above = (torch.as_tensor(image).as_subclass(Tensor) > self.threshold).any(dim=0, keepdim=True)
            mask = close(above, self.closing)
            result["foreground"] = MetaTensor(mask, meta=dict(image.meta)) if isinstance(image, MetaTensor) else mask
        return result


def close(mask: Tensor, radius: int) -> Tensor:
    """Morphological closing of a bool mask ``[1,H,W]`` or ``[1,H,W,D]`` in the plane, by a square of ``2 radius + 1``.

    What lies beyond the border counts for neither side, so foreground that touches the border stays.
    """
    if radius == 0:
        return mask
    planes = mask[None] if mask.ndim == 3 else mask.movedim(-1, 0)
    closed = erode(dilate(planes, 2 * radius + 1), 2 * radius + 1)
    return closed[0] if mask.ndim == 3 else closed.movedim(0, -1)


def to_patches(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Reduce a pixel mask ``[...,H,W]`` to bool patches ``[...,h,w]``.

    A patch is foreground if one of its pixels is, because a lesion at the rim of the body must keep its score.

    Args:
        mask: bool or 0/1 mask, with one or two leading axes; one of patches is returned as it is.
        grid: ``(h, w)``.
    """
    if tuple(mask.shape[-2:]) == tuple(grid):  # pooling would wake every thread of the process for nothing
        return mask.as_subclass(Tensor) > 0
    return F.adaptive_max_pool2d(mask.as_subclass(Tensor).float(), grid) > 0
