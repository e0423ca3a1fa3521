"""Millimetres, whatever unit of length a volume's header counts in."""

from __future__ import annotations

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
    with open(path, "rb") as file:
        found = NRRD_UNITS.search(file.read(HEADER_BYTES).partition(b"\n\n")[0])
    words = re.findall(r'"([^"]*)"', found[1].decode("utf-8", "replace")) if found else []
    factors = {OF_WORD.get(word.strip(), 1.0) for word in words}
    if len(factors) > 1:
        raise ValueError(f"its axes have different units ({', '.join(words)}); expected one. Save it in millimetres")
    return factors.pop() if factors else 1.0


def in_millimetres(affine: np.ndarray, mm_per_unit: float) -> np.ndarray:
    """A 4x4 affine of a file, in millimetres."""
    scale = np.diag([*[mm_per_unit] * (len(affine) - 1), 1.0])
    return scale @ affine if mm_per_unit != 1 else affine
