"""Every image gets a label that is one: zeros where there is no file, 0 and 1 whatever the file holds."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from dino_uad.transforms.mask_values import BINARY, marked

MOSTLY = 0.8  # share of an image; a label above it is likely normal tissue marked instead of the anomaly
logger = logging.getLogger(__name__)


class FillLabeld(MapTransform):
    """Gives an ``image`` without a label file an all-zero one, and makes every label binary uint8 (see ``marked``).

    Sets ``has_mask``: False where the data list calls an image anomalous (``anomalous: 1``) but there is no mask, so
    that pixel metrics leave it out.

    Args:
        keys: label items.

    Raises:
        ValueError: label and image differ in size; both sizes are named.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys, allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        image = result["image"]
        for key in self.keys:
            if result.get(key) is None:
                result[key] = (image[:1] * 0).to(torch.uint8)
                result["has_mask"] = not result.get("anomalous")
                continue
            result["has_mask"] = True
            label = result[key].amax(dim=0, keepdim=True)
            if label.shape[1:] != image.shape[1:]:
                raise ValueError(
                    f"{_file(label, key)}: label of size {list(label.shape[1:])} found, its image has "
                    f"{list(image.shape[1:])}; expected equal sizes. Resample the label to the image's grid"
                )
            result[key] = convert_to_dst_type(marked(label), label, dtype=torch.uint8)[0]
            if isinstance(label, MetaTensor):
                result[key].meta[BINARY] = True
            if float(result[key].sum()) > MOSTLY * result[key].numel():
                logger.warning(f"{_file(label, key)}: the label marks most of its image; is it inverted?")
        return result


def _file(label: torch.Tensor, key: Hashable) -> str:
    return Path(str(getattr(label, "meta", {}).get("filename_or_obj", key))).name
