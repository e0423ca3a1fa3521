"""What the files of a data set are, told from their names: image or mask, split, class.

Each folder name below the data set's root is looked up on its own, in any order, so split-first and class-first
spellings (``test/Ungood/label``, ``Ungood/test/label``) read the same.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from dino_uad.data.walk import PICTURE, RESULT, VOLUME, walk
from dino_uad.transforms import image_name

logger = logging.getLogger(__name__)

LAYOUTS = """expected one of
  BMAD:    train/good/*.png (or train/good/img/*.png), valid|test/{good,Ungood}/{img,label}/*.png
  MVTec:   train/good/*.png, test/{good,<defect>}/*.png, ground_truth/<defect>/*_mask.png
  plain:   a folder of pictures, or of volumes (NIfTI, NRRD, MHA, DICOM folders) with optional *_label or *_seg files"""

SPLITS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}
NORMAL = {"good", "normal", "healthy"}
ANOMALOUS = {"ungood", "bad", "abnormal", "anomalous", "anomaly"}
IMAGE_FOLDERS = {"img", "imgs", "image", "images"}
MASK_FOLDERS = {"label", "labels", "anomaly_mask", "mask", "masks", "ground_truth", "gt"}

MASK_NAME = re.compile(r"(?:^|[ _-])(?:labels?|seg|segmentation|masks?|gt)$", re.IGNORECASE)
IMAGE_NAME = re.compile(
    r"(?:^|[ _-])(?:image|img|flair|t1|t1w|t1c|t1ce|t1n|t2|t2w|t2f|adc|dwi|ct|mri?|0000)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Entry:
    """One image or mask of a data set: a file, or the folder of a DICOM series."""

    path: Path
    stem: str
    volume: bool
    mask: bool
    split: str | None
    anomalous: bool | None
    context: tuple[str, ...]
    """Folder names below the root without image and mask folders: what an image and its mask have in common."""

    @property
    def case(self) -> str:
        """The name without the suffix that says what it is: ``p1_flair`` and ``p1_label`` are both ``p1``."""
        return (MASK_NAME if self.mask else IMAGE_NAME).sub("", self.stem)


def scan(root: Path, pattern: str = "*") -> list[Entry]:
    """List the images and masks below ``root`` in natural order; hidden and other files are passed over.

    Args:
        root: folder of the data set.
        pattern: shell pattern that an image's file name must match (masks always stay), e.g. ``"*t2f*"``.
    """
    found = walk(root)
    own = [file.path for file in found if file.kind == RESULT]
    if own:
        logger.warning("%s: %d results of this package are passed over (such as %s)", root, len(own), own[0].name)
    entries = [_entry(root, file.path, file.kind == VOLUME) for file in found if file.kind in (PICTURE, VOLUME)]
    return [entry for entry in entries if entry.mask or fnmatch(entry.path.name, pattern)]


def _entry(root: Path, path: Path, volume: bool) -> Entry:
    relative = path.relative_to(root)
    folders = [part.lower() for part in relative.parts[:-1]]
    stem = image_name(path)
    splits = [SPLITS[part] for part in folders if part in SPLITS]
    mask = any(part in MASK_FOLDERS for part in folders) or bool(MASK_NAME.search(stem))
    normal = any(part in NORMAL for part in folders)
    anomalous = any(part in ANOMALOUS for part in folders)
    return Entry(
        path=path,
        stem=stem,
        volume=volume,
        mask=mask,
        split=splits[0] if splits else None,
        anomalous=anomalous if normal or anomalous else None,
        context=tuple(part for part in folders if part not in IMAGE_FOLDERS | MASK_FOLDERS),
    )
