"""From the anomaly map to what is saved, shown and measured."""

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
from dino_uad.transforms.unscored import NOTHING_SCORED, nothing_scored

REQUESTED = "image_path"
"""Item key under which MONAI Label keeps what it was asked for."""
MOSTLY = 0.8  # share of an image; a label above it is likely normal tissue marked instead of the anomaly

logger = logging.getLogger(__name__)


class ServedMapd(MapTransform):
    """Gives a map ``[1,...]`` the form that MONAI Label can write: no channel axis, pictures in 8 bit.

    The server writes a map in its image's format, and a PNG holds no float. The anomaly map ``[1,W,H]`` of a picture is
    scaled from its lowest to its highest score; volumes and label maps keep their values.

    What is known of the scan goes into ``result``, which the server sends along as ``params``: the numbers of
    :class:`~dino_uad.transforms.score_scan.ScoreScand`, ``findings``, a list of dictionaries, and ``notes``.

    Raises:
        ValueError: MONAI Label asked, and no slice of the scan was scored: an empty label would call it normal. (The
            worklist of a run lists such a scan as failed, and goes on.)
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if REQUESTED in result and nothing_scored(result):
            raise ValueError(f"{result[REQUESTED]}: {NOTHING_SCORED}")
        for key in self.key_iterator(result):
            served = result[key][0]
            if served.dtype == torch.int16 and served.max() < 256:
                served = served.to(torch.uint8)
            if served.ndim == 2 and served.is_floating_point():
                low, high = float(served.min()), float(served.max())
                served = ((served - low) * (255 / max(high - low, 1e-12))).round().to(torch.uint8)
            result[key] = served
        if "scan" in result:
            findings = [finding.as_dict() for finding in result.get("findings", [])]
            result["result"] = {**result["scan"], "findings": findings, "notes": list(result.get("notes", []))}
        return result


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
