"""What masks mark: an anomaly or nothing, which values, and what several of one image mark twice.

Each file is read once in a process, for as long as it stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np

from dino_uad.transforms import LoadScan, UnitPILReader, label_values, marked, opened

Identity = tuple[Path, int, int]
"""A file's path, size and time of change."""


def has_anomaly(labels: Sequence[Path], chosen: Sequence[int] | None = None) -> bool:
    """Whether one of an image's masks marks an anomaly; an empty mask says that its image is normal.

    Args:
        labels: the masks.
        chosen: values that mark anomalies; None for all above 0.
    """
    return any(_marks(label, chosen) for label in labels)


def labels_in(label: Path) -> tuple[int, ...]:
    """The values of a label map, sorted; ValueError where it is none."""
    return _labels_in(*identity(label))


def overlap(labels: Sequence[Path], chosen: Sequence[int] | None = None) -> float:
    """How much masks of one image mark twice: the largest share of a mask that another one marks too."""
    return _overlap(tuple(identity(label) for label in labels), None if chosen is None else tuple(chosen))


def identity(path: Path) -> Identity:
    """Path, size and time of change of a file: equal while the file is."""
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns


def _marks(label: Path, chosen: Sequence[int] | None) -> bool:
    if chosen is None or not any(labels_in(label)):
        return _has_mark(*identity(label))
    return not set(labels_in(label)).isdisjoint(chosen)


@cache
def _has_mark(label: Path, size: int, changed: int) -> bool:
    values = scan_loader()(label)
    if bool((values > 0).any()):
        return True
    if bool((values < 0).any()) or colourless_marks(label):
        raise ValueError(
            f"{label}: the mask has no value above 0, but marks below it, in its transparency or in a black palette; "
            "expected a mark in grey or colour. Export it again."
        )
    return False


def colourless_marks(label: Path) -> bool:
    """Whether a picture without colour has several values in its transparency, or as indices of a black palette."""
    if not UnitPILReader().verify_suffix(str(label)):
        return False
    with opened(label) as picture:
        return any(low != high for low, high in np.reshape(picture.getextrema(), (-1, 2)))


@cache
def _labels_in(label: Path, size: int, changed: int) -> tuple[int, ...]:
    return label_values(scan_loader()(label))


@cache
def _overlap(labels: tuple[Identity, ...], chosen: tuple[int, ...] | None) -> float:
    masks = [marked(scan_loader()(label, anomalous_labels=chosen)).any(dim=0) for label, *_ in labels]
    shares = [0.0]
    for one, other in combinations(masks, 2):
        smaller = int(min(one.sum(), other.sum()))
        if one.shape == other.shape and smaller:
            shares.append(int((one & other).sum()) / smaller)
    return max(shares)


@cache
def scan_loader() -> LoadScan:
    """The one reader of a process: making one asks for every reader that MONAI knows."""
    return LoadScan()
