"""Intensities to [0, 1]: pictures are there already, MRI by percentiles, CT by a window."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from dino_uad.settings import is_number, require, require_choice
from dino_uad.transforms.percentile import percentile

PERCENTILES = (0.0, 99.99)


class ScaleToUnitd(MapTransform):
    """Scales each image or whole volume ``[C,...]`` to [0, 1] float32.

    ``mode="auto"`` leaves pictures with ``meta["unit_range"]`` as they are, divides volumes that hold 8-bit values
    (whole numbers from 0 to at most 255, the largest above 127) by 255 like an 8-bit picture, and scales all others
    from the lower percentile of all voxels to the upper percentile of the non-zero voxels. Exact zeros that fill more
    than 5 % of a volume with negative values are background (z-scored MRI) and stay 0.
    ``mode="window"`` maps the window, in the image's units (Hounsfield for CT), to [0, 1]; pictures stay as they are.
    ``mode="range"`` does so with pictures too, in the values that their files hold: ``(0, 4095)`` for 12 bits in 16.

    A constant image becomes zero. Input must be finite (``LoadScand`` checks it); the output is never NaN.

    Args:
        keys: images to scale.
        mode: "auto", "window" or "range".
        window: ``(low, high)`` for ``mode="window"`` and "range", e.g. ``(-160, 240)`` for soft tissue.
        percentiles: ``(lower, upper)`` for "auto". Near the maximum, but not decided by a single voxel
            (vessels, artefacts).

    Raises:
        ValueError: an option is none of these, or is one that the mode does not use.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        mode: str = "auto",
        window: Sequence[float] | None = None,
        percentiles: Sequence[float] = PERCENTILES,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        require_choice("mode", mode, ("auto", "window", "range"))
        if mode != "auto" or window is not None:
            pair = isinstance(window, Sequence) and len(window) == 2
            pair = pair and all(is_number(end, -math.inf, math.inf) for end in window) and window[0] < window[1]
            require("window", window, pair, "(low, high) with low < high, e.g. (-160, 240)")
        if mode == "auto" and window is not None:
            raise ValueError(
                f"window is {window!r}, but mode is 'auto', which uses none; expected mode 'window' (volumes) "
                f"or 'range' (pictures, too) with it: --intensity \"{{'mode': 'window', 'window': {list(window)!r}}}\""
            )
        if mode != "auto" and tuple(percentiles) != PERCENTILES:
            raise ValueError(
                f"percentiles are {percentiles!r}, but mode is {mode!r}; expected them with mode 'auto' alone"
            )
        if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ValueError(f"percentiles are {percentiles!r}; expected 0 <= lower < upper <= 100")
        self.mode = mode
        self.window = None if window is None else tuple(map(float, window))
        self.percentiles = tuple(map(float, percentiles))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            meta = getattr(image, "meta", {})
            if self.mode == "range" and meta.get("unit_range", False):
                image = image.float() * float(meta.get("type_range", 1.0))
            if self.mode == "range" or not meta.get("unit_range", False):
                result[key] = self._scale(image)
                if hasattr(result[key], "meta"):
                    result[key].meta["unit_range"] = True
        return result

    def _scale(self, image: Tensor) -> Tensor:
        image = image.float()
        low, high = value_range(image, self.percentiles) if self.mode == "auto" else self.window
        if high <= low:
            return torch.zeros_like(image)
        background = self.mode == "auto" and low < 0 and float((image == 0).sum()) > 0.05 * image.numel()
        # In place from here on: a volume and what it becomes are all that is held.
        scaled = (image - low).div_(high - low).clamp_(0, 1)
        return scaled.masked_fill_(image == 0, 0) if background else scaled


def value_range(image: Tensor, percentiles: Sequence[float]) -> tuple[float, float]:
    """Return the intensities that become 0 and 1; equal ones say that the image is constant."""
    values = image.detach().as_subclass(Tensor).cpu().numpy()
    smallest, largest = float(values.min()), float(values.max())
    if smallest == largest:
        return smallest, largest
    if smallest >= 0 and 127 < largest <= 255 and all((plane == np.rint(plane)).all() for plane in values[0]):
        return 0.0, 255.0
    low = smallest if percentiles[0] == 0 else percentile(values, percentiles[0])
    high = percentile(values, percentiles[1], skip_zeros=True)
    # Nearly all non-zero voxels can be equal (a mask given as image): the percentiles then say nothing.
    return (low, high) if high > low else (smallest, largest)
