"""From the output of a :class:`~dino_uad.engines.evaluate.DetectorEvaluator` to what each metric takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

Items = Sequence[Mapping[str, Any]]


def is_anomalous(item: Mapping[str, Any]) -> bool:
    """Whether an image has a marked pixel, or is known to be anomalous and has no mask."""
    return bool((item["label"] > 0).any()) or not item["has_mask"]


def pixels(items: Items) -> tuple[list[Tensor], list[Tensor]]:
    """Maps and bool masks ``[1,H,W]``, on the device, of the images whose mask is known."""
    known = [item for item in items if item["has_mask"]]
    return [item["pred"] for item in known], [item["mask"] for item in known]


def grouped_pixels(items: Items) -> tuple[list[Tensor], list[Tensor], list[str]]:
    """Like :func:`pixels`, with the group (patient, where names tell) of each image."""
    return *pixels(items), [str(item["group"]) for item in items if item["has_mask"]]


def images(items: Items) -> tuple[list[Tensor], list[int]]:
    """Image scores and labels, those of :func:`is_anomalous`."""
    return [item["image_score"] for item in items], [int(is_anomalous(item)) for item in items]


def grouped_images(items: Items) -> tuple[list[Tensor], list[int], list[str]]:
    """Like :func:`images`, with the group of each image."""
    return *images(items), [str(item["group"]) for item in items]


def scans(items: Items) -> tuple[list[Tensor], list[Tensor], list[int]]:
    """Like :func:`pixels`, with the number of the scan that each image is, or is a slice of, within the batch."""
    return *pixels(items), [item["scan"] for item in items if item["has_mask"]]
