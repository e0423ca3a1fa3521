"""Millimetres, whatever unit of length a volume's header counts in."""

from __future__ import annotations

import math
import re
from pathlib import Path

import nibabel as nib
import numpy as np

MM_PER_UNIT = "mm_per_unit"
"""The meta data entry: what an affine in the file's unit was multiplied with."""
NIFTI = {1e-3: "micron", 1.0: "mm", 1e3: "meter"}
WORDS = {1e-6: ("nm",), 1e-3: ("um", "µm", "μm", "micron", "microns"), 1.0: ("mm",), 10.0: ("cm",), 1e3: ("m", "meter")}
OF_WORD = {word: factor for factor, words in WORDS.items() for word in words}
NRRD_UNITS = re.compile(rb"^space units:(.*)$", re.IGNORECASE | re.MULTILINE)
NRRD_SIZES = re.compile(
    rb"^(?:dimension:\s*(\d+)|spacings:(.*)|(space directions):.*)\r?$", re.IGNORECASE | re.MULTILINE
)
METAIMAGE_SIZES = re.compile(rb"^\s*Element(?:Spacing|Size)\s*=", re.IGNORECASE | re.MULTILINE)
HEADER_BYTES = 1 << 16


def nifti_unit(image: nib.Nifti1Image) -> float:
    """Millimetres per unit of a NIfTI file's affine; one that names no unit counts in millimetres."""
    try:
        unit = image.header.get_xyzt_units()[0]
    except (AttributeError, KeyError):  # Analyze; a code that means nothing
        return 1.0
    return next((factor for factor, name in NIFTI.items() if name == unit), 1.0)


def nrrd_unit(path: Path) -> float:
    """Millimetres per unit of an NRRD file's directions; one that names none counts in millimetres.

    Raises:
        ValueError: its axes have different units.
    """
    if path.suffix.lower() not in (".nrrd", ".nhdr"):
        return 1.0
    found = NRRD_UNITS.search(_head(path))
    words = re.findall(r'"([^"]*)"', found[1].decode("utf-8", "replace")) if found else []
    factors = {OF_WORD.get(word.strip(), 1.0) for word in words}
    if len(factors) > 1:
        raise ValueError(f"its axes have different units ({', '.join(words)}); expected one. Save it in millimetres")
    return factors.pop() if factors else 1.0


def states_spacing(path: Path) -> bool:
    """Whether the header of an NRRD or MetaImage file tells how large a voxel is; ITK takes 1 mm where it does not."""
    head = _head(path)
    if path.suffix.lower() in (".mha", ".mhd"):
        return bool(METAIMAGE_SIZES.search(head))
    dimension = 3
    for axes, spacings, directions in NRRD_SIZES.findall(head):
        if directions:
            return True
        dimension = int(axes or dimension)
        if len([one for one in spacings.split() if float(one) and math.isfinite(float(one))]) >= min(3, dimension):
            return True
    return False


def _head(path: Path) -> bytes:
    """The lines of an NRRD or MetaImage header, without the values behind them."""
    with open(path, "rb") as file:
        return re.split(rb"\r?\n\r?\n|ElementDataFile", file.read(HEADER_BYTES), maxsplit=1)[0]


def in_millimetres(affine: np.ndarray, mm_per_unit: float) -> np.ndarray:
    """A 4x4 affine of a file, in millimetres."""
    scale = np.diag([*[mm_per_unit] * (len(affine) - 1), 1.0])
    return scale @ affine if mm_per_unit != 1 else affine
