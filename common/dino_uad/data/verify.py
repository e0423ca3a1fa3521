"""Checks of listed files before work starts: sizes from headers, or a full read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dino_uad.data.marks import has_anomaly
from dino_uad.transforms import (
    NIFTI_SUFFIXES,
    Grid,
    LoadScand,
    UnitPILReader,
    first_line,
    opened,
    require_explained,
    stored_size,
    turned,
)

logger = logging.getLogger(__name__)

SIDEWAYS = (5, 6, 7, 8)  # values of EXIF's Orientation that exchange rows and columns


def labels_of_item(item: Mapping[str, Any]) -> list[str]:
    """The label files of an entry of a data list: none, one, or the parts of one annotation."""
    label = item.get("label", [])
    return [label] if isinstance(label, str) else list(label)


def refuse_blank(items: list[dict]) -> None:
    """Raise ValueError where the mask of an anomalous image marks nothing."""
    for item in items:
        labels = labels_of_item(item)
        chosen = item.get("anomalous_labels")
        if item["anomalous"] and labels and not has_anomaly([Path(label) for label in labels], chosen):
            blank = "is blank" if chosen is None else f"has none of the anomalous_labels {chosen}"
            raise ValueError(
                f"{labels[0]}: the mask {blank}, but the folder of its image {item['image']} says anomalous; "
                "expected a mark in grey or colour (not in the transparency alone). Export it again, or move the image."
            )


def check_sizes(items: list[dict]) -> None:
    """Raise ValueError where a mask does not lie on its image, as far as headers tell.

    Pictures and their masks have equal sizes. Volumes may lie on different grids where their affines explain it. Masks
    that may lie on their picture as it is shown, not as it is stored, are told of.
    """
    shown: list[str] = []
    for item in items:
        for path in labels_of_item(item):
            image, label = _header(item["image"]), _header(path)
            if isinstance(image, Grid) and isinstance(label, Grid):
                require_explained(label, image)
            elif isinstance(image, tuple) and isinstance(label, tuple):
                turn = _turn(item["image"])
                if image != label:
                    raise ValueError(_sizes_differ(path, label, item["image"], image, turn))
                if turn != 1 and _turn(path) == 1:
                    shown.append(item["image"])
    if shown:
        logger.warning(
            "%d images with a mask say that they are to be turned or mirrored when they are shown (EXIF's Orientation; "
            "such as %s), and their masks do not. The tag is ignored: look whether the masks lie on the pixels as they "
            "are stored",
            len(shown),
            shown[0],
        )


def _sizes_differ(path: str, label: tuple[int, ...], of: str, image: tuple[int, ...], turn: int) -> str:
    said = f"{path}: the mask is {label}, its image {of} is {image}"
    if turn in SIDEWAYS and label == image[::-1]:
        return (
            f"{said} as it is stored, and says that it is to be turned when it is shown (EXIF's Orientation {turn}), "
            "which is ignored; expected a mask on the stored pixels. Turn the mask, or save the image turned and "
            "without the tag."
        )
    return f"{said}; expected equal sizes. Resample the mask to the image's grid."


def _turn(path: str | Path) -> int:
    """How a picture is to be turned when it is shown; 1 of a volume."""
    if not UnitPILReader().verify_suffix(str(path)):
        return 1
    with opened(path) as picture:
        return turned(picture)


def _header(path: str | Path) -> tuple[int, ...] | Grid | None:
    """A picture's size or a NIfTI volume's grid, None for other formats; ValueError where a header cannot be read."""
    try:
        if UnitPILReader().verify_suffix(str(path)):
            with opened(path) as picture:
                return stored_size(picture)
        if str(path).lower().endswith(NIFTI_SUFFIXES):
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
                raise ValueError(f"{labels_of_item(item)[0]}: sizes of mask and image differ: {sorted(shapes)}")
            good.append(item)
        except (ValueError, OSError) as error:
            logger.warning("skipped: %s", error)
    if len(good) < len(items):
        logger.warning("skipped %d of %d images that cannot be used (named above)", len(items) - len(good), len(items))
    return good
