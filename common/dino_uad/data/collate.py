"""Batches of images whose labels may differ in size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data.utils import is_supported_format
from torch import Tensor

from dino_uad.findings import NO_SPACING, ScanGrid
from dino_uad.transforms import PICTURE_SUFFIXES


def stack_images(images: Sequence[Tensor]) -> Tensor:
    """Stack ``[1|3,H,W]`` images to a plain ``[B,1|3,H,W]`` tensor; grey ones among colour ones are replicated."""
    channels = max(image.shape[0] for image in images)
    return torch.stack([torch.as_tensor(image).as_subclass(Tensor).expand(channels, -1, -1) for image in images])


def files_per_batch(data: Sequence[Mapping[str, Any]], pictures: int = 4) -> int:
    """How many files of a data list to collate: ``pictures``, or 1 where there are volumes, which have many slices."""
    return pictures if is_supported_format([entry["image"] for entry in data], PICTURE_SUFFIXES) else 1


def collate_slices(batch: Sequence[Mapping[str, Any] | Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Collate images, or the slice lists that a transform made of volumes.

    Args:
        batch: items, or lists of them; there may be none.

    Returns:
        ``image`` ``[B,C,H,W]``; lists of length B: ``label`` (``[1,h,w]`` uint8 each, sizes may differ), ``has_mask``,
        ``group``, ``name`` (file name without folder), ``scan`` (number of the file within the batch: of what a list
        holds, the slices of one volume, it is the same; names may be), ``slice_index`` and ``slice_number`` (from 0 in
        the network's volume, and from 1 in the file, as viewers count; None for a 2-D image) and ``spacing``
        (millimetres per row, column and slice of the label; None for pictures, whose files do not say).
    """
    entries = [entry if isinstance(entry, list | tuple) else [entry] for entry in batch]
    items = [item for slices in entries for item in slices]
    files = [Path(str(item["image"].meta.get("filename_or_obj", ""))) for item in items]
    return {
        "image": stack_images([item["image"] for item in items]) if items else torch.empty(0),
        "label": [torch.as_tensor(item["label"]).as_subclass(Tensor) for item in items],
        "has_mask": [bool(item["has_mask"]) for item in items],
        "group": [str(item.get("group", file.name)) for item, file in zip(items, files, strict=True)],
        "name": [file.name for file in files],
        "scan": [number for number, slices in enumerate(entries) for _ in slices],
        "slice_index": [item.get("slice_index") for item in items],
        "slice_number": [slice_number(item) for item in items],
        "spacing": [spacing(item["label"]) for item in items],
    }


def slice_number(item: Mapping[str, Any]) -> int | None:
    """Number in its file, from 1, of a slice that ``ExtractSlicesd`` made; None for a 2-D image."""
    if (index := item.get("slice_index")) is None:
        return None
    meta = item["image"].meta
    return ScanGrid.from_meta(meta, "".join(nib.aff2axcodes(np.asarray(meta["affine"])))).slice_number(index)


def spacing(image: Tensor) -> tuple[float, float, float] | None:
    """Millimetres per row, column and slice of a ``MetaTensor`` ``[C,H,W]`` of a scan, None where none are stated."""
    meta = getattr(image, "meta", {})
    if meta.get("picture", True) or meta.get(NO_SPACING):
        return None
    columns = torch.as_tensor(meta["affine"])[:3, :3].double()
    return tuple(columns.norm(dim=0).tolist())
