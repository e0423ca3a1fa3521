"""Checks of listed files before work starts: sizes from headers, or a full read."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path

from PIL import Image

from dino_uad.transforms import Grid, LoadScan, LoadScand, UnitPILReader, first_line, require_explained

logger = logging.getLogger(__name__)


def has_anomaly(label: Path) -> bool:
    """Whether a mask marks anything; an empty mask says that its image is normal."""
    status = os.stat(label)
    return _has_anomaly(label, status.st_size, status.st_mtime_ns)


@cache
def _has_anomaly(label: Path, size: int, changed: int) -> bool:
    return bool((_loader()(label) > 0).any())


@cache
def _loader() -> LoadScan:
    return LoadScan()  # once: making one asks for every reader that MONAI knows


def refuse_blank(items: list[dict]) -> list[dict]:
    """Return the items; raise ValueError where the mask of an anomalous image marks nothing."""
    for item in items:
        if item["anomalous"] and "label" in item and not has_anomaly(Path(item["label"])):
            raise ValueError(
                f"{item['label']}: the mask is blank, but the folder of its image {item['image']} says anomalous; "
                "expected a mark in grey or colour (not in the transparency alone). Export it again, or move the image."
            )
    return items


def check_sizes(items: list[dict]) -> list[dict]:
    """Return the items; raise ValueError where a mask does not lie on its image, as far as headers tell.

    Pictures and their masks have equal sizes. Volumes may lie on different grids where their affines explain it.
    """
    for item in items:
        if "label" in item:
            image, label = _header(item["image"]), _header(item["label"])
            if isinstance(image, Grid) and isinstance(label, Grid):
                require_explained(label, image)
            elif isinstance(image, tuple) and isinstance(label, tuple) and image != label:
                raise ValueError(
                    f"{item['label']}: the mask is {label}, its image {item['image']} is {image}; "
                    "expected equal sizes. Resample the mask to the image's grid."
                )
    return items


def _header(path: str | Path) -> tuple[int, ...] | Grid | None:
    """A picture's size or a NIfTI volume's grid, None for other formats; ValueError where a header cannot be read."""
    try:
        if UnitPILReader().verify_suffix(str(path)):
            with Image.open(path) as picture:
                return picture.size
        if str(path).lower().endswith((".nii", ".nii.gz")):
            return Grid.of_nifti(str(path))
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read: {first_line(error)}. Expected a complete, undamaged file. "
            "Copy or export it again, or leave it out (on_error='skip')."
        ) from error
    return None


def readable(items: list[dict]) -> list[dict]:
    """Return the items whose image and mask can be read and fit each other; log the number and names of the others."""
    load, good = LoadScand(("image", "label"), allow_missing_keys=True), []
    for item in items:
        try:
            loaded = load(item)
            shapes = {tuple(loaded[key].shape[1:]) for key in ("image", "label") if key in item}
            if len(shapes) > 1:
                raise ValueError(f"{item['label']}: sizes of mask and image differ: {sorted(shapes)}")
            good.append(item)
        except (ValueError, OSError) as error:
            logger.warning("skipped: %s", error)
    if len(good) < len(items):
        logger.warning("skipped %d of %d images that cannot be used (named above)", len(items) - len(good), len(items))
    return good
