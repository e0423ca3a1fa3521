"""A mark in what this package writes, so that a result beside the data is never scored, learnt or taken for a mask.

The mark is in the file itself, not in its name: results are renamed and moved, and a name such as ``p1_label.png`` is
also that of an annotation.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from dino_uad.transforms.suffixes import NIFTI_SUFFIXES

MARK = "dino_uad result"
NIFTI_MARK = MARK.encode()
PNG_KEY, TIFF_TAG = "Software", 305  # both stand for the program that made the picture
NIFTI_DESCRIPTION = slice(148, 228)  # the header's free text ``descrip``


def png_mark() -> PngInfo:
    """What to give as ``pnginfo`` when PIL saves a PNG; matplotlib takes ``metadata={"Software": MARK}``."""
    info = PngInfo()
    info.add_text(PNG_KEY, MARK)
    return info


def tiff_mark() -> TiffImagePlugin.ImageFileDirectory_v2:
    """What to give as ``tiffinfo`` when PIL saves a TIFF. A NIfTI header has ``header["descrip"] = NIFTI_MARK``."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[TIFF_TAG] = MARK
    return tags


def is_own_result(path: str | os.PathLike[str]) -> bool:
    """Whether this package wrote the PNG, TIFF or NIfTI file as a result; only headers are read.

    DICOM files made by the package carry the mark in (0008,1090) ManufacturerModelName, which is in the first
    kilobytes of a file. A file that cannot be read is nobody's result: whoever loads it says what is wrong.
    """
    name = Path(path).name.lower()
    try:
        if name.endswith(NIFTI_SUFFIXES):
            with gzip.open(path) if name.endswith(".gz") else open(path, "rb") as file:
                return file.read(NIFTI_DESCRIPTION.stop)[NIFTI_DESCRIPTION].startswith(NIFTI_MARK)
        if name.endswith((".png", ".tif", ".tiff")):
            with Image.open(path) as picture:
                written_by = (
                    picture.tag_v2.get(TIFF_TAG, "") if hasattr(picture, "tag_v2") else picture.info.get(PNG_KEY)
                )
                return str(written_by).startswith(MARK)
        with open(path, "rb") as file:
            head = file.read(4096)
            return head[128:132] == b"DICM" and NIFTI_MARK in head
    except Exception:  # decoders raise what they like: too many pixels, a broken stream
        return False
