"""Inference on the kind of slices that the model was fitted to."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from dino_uad.settings import require_number
from dino_uad.transforms.slice_choice import (
    EMPTY,
    choose,
    foreground_share,
    little_foreground,
    log_left_out,
    preset_settings,
    slice_range,
    source,
)

logger = logging.getLogger(__name__)


class LeaveOutSlicesd(MapTransform):
    """Sets those slices of a volume ``[C,H,W,D]`` to 0 that ``ExtractSlicesd`` would have kept from the fit.

    A model calls whatever it has not seen the like of anomalous, such as the vertex of a head; so a slice outside of
    what it was fitted to is no evidence. Like any slice without foreground it is then not run, and scores zero. One
    line of the log says how many and why. Pictures ``[C,H,W]`` pass unchanged. Place it before any resizing, as
    ``ExtractSlicesd`` is in the fit: shares of foreground are those of the file's own grid.

    Args:
        keys: images in [0, 1].
        preset: a name in :data:`~dino_uad.transforms.slice_choice.PRESETS`: sets ``min_foreground`` and the range.
        min_foreground: smallest share of pixels above 0 in a slice that is scored.

    Raises:
        ValueError: unknown preset, or a volume that has no slice in its range.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        preset: str | None = None,
        min_foreground: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        require_number("min_foreground", min_foreground, 0, 1)
        choice = {"min_foreground": min_foreground, **preset_settings(preset)}
        self.start, self.stop = choice.get("start", 0), choice.get("stop")
        self.min_foreground = float(choice["min_foreground"])
        self.organ_masked = choice.get("organ_masked", False)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            if result[key].ndim == 4:
                result[key] = self._volume(result[key])
        return result

    def _volume(self, image: Tensor) -> Tensor:
        if self.organ_masked:
            logger.warning(
                f"{source(image)}: the model was fitted to the inside of an organ, which a label showed; "
                "expected an image that is 0 outside of it and has an equalised histogram inside"
            )
        indices, left_out = slice_range(image, 2, self.start, self.stop)
        shares = foreground_share(image).tolist()
        kept = torch.zeros(image.shape[-1], device=image.device)
        kept[choose(indices, lambda index: self._reason(shares[index]), left_out)] = 1
        log_left_out(image, 2, left_out, "slices score zero")
        return image if kept.all() else image * kept

    def _reason(self, share: float) -> str | None:
        """Why a slice with this share of foreground is left out; None if it is not."""
        return little_foreground(share, self.min_foreground) if share else EMPTY
