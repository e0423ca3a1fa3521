"""The foreground of images that are to be embedded, by the same function as when they are scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from dino_uad.detector import Foreground


class WithForeground:
    """A transform, followed by the foreground of the slices that it makes of one entry of a data list.

    Args:
        transform: from a dictionary with paths to one or (nested) lists of them, with an ``image`` ``[C,H,W]``.
        find: the foreground of the detector; what the transform itself calls ``foreground`` is kept.
        patch_size: side of a patch in pixels.
    """

    def __init__(self, transform: Callable, find: Foreground, patch_size: int) -> None:
        self.transform, self.find, self.patch_size = transform, find, patch_size

    def __call__(self, entry: Mapping[str, Any]) -> Any:
        result = self.transform(entry)
        slices = list(flattened(result))
        if slices and "foreground" not in slices[0]:
            images = [torch.as_tensor(one["image"]).as_subclass(Tensor).float() for one in slices]
            thresholds = self.find.of_scans(images, [0] * len(images))
            for one, image, threshold in zip(slices, images, thresholds, strict=True):
                grid = [side // self.patch_size for side in image.shape[-2:]]
                one["foreground"] = self.find(image[None], grid, threshold[None])[0]
        return result


def flattened(slices: Any) -> Iterator[dict[str, Any]]:
    """Yield the dictionaries in a transform's result: one, or (nested) lists, as of the views of a volume's slices."""
    if isinstance(slices, list):
        for part in slices:
            yield from flattened(part)
    else:
        yield slices
