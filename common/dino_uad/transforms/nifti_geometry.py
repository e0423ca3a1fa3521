"""Where a NIfTI file says that its voxels lie: read as nibabel does, doubted aloud, and written again as it was."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import product

import nibabel as nib
import numpy as np

from dino_uad.transforms.units import MM_PER_UNIT, NIFTI, in_millimetres, nifti_unit

NIFTI_FORMS = "nifti_forms"
"""The meta data entry: the bytes of a NIfTI header with nothing but the file's qform, sform, codes and voxel sizes."""
FORMS = (
    "qform_code",
    "sform_code",
    *(f"quatern_{x}" for x in "bcd"),
    *(f"{name}_{x}" for x in "xyz" for name in ("qoffset", "srow")),
)
ROUNDED = 0.01  # the share by which sizes that were rounded, or lost a little shear, may differ


def load_nifti(path: str | os.PathLike[str]) -> nib.Nifti1Image:
    """Open a file; its affine is the sform if the header declares one, else the qform, else that of the voxel sizes.

    An sform that is declared and has no inverse (NaN, zeros) counts as not declared. MONAI takes the qform, declared or
    not, wherever the voxel sizes are not those of the sform to five digits.
    """
    image = nib.load(path)
    if isinstance(image.header, nib.Nifti1Header) and _is_void(image.header):
        image.set_sform(np.zeros((4, 4)), 0)
    return image


def geometry_doubts(image: nib.Nifti1Image) -> list[str]:
    """What is odd in the geometry of an image from :func:`load_nifti`, and what is made of it."""
    header = image.header
    if not isinstance(header, nib.Nifti1Header):
        return []
    doubts, unit = [], nifti_unit(image)
    if unit != 1:
        doubts.append(f"its header counts in {header.get_xyzt_units()[0]}s: voxels of {_sizes(image, unit)} mm")
    written = written_header(image)
    if _is_void(written):
        doubts.append(
            "its sform has values that are no numbers, or no inverse; the qform, or the voxel sizes alone, are used"
        )
    if header["sform_code"] > 0:
        said, sizes = written["pixdim"][1:4], nib.affines.voxel_sizes(image.affine)
        if (said > 0).all() and not np.allclose(said, sizes, rtol=ROUNDED, atol=0):
            by_header = " x ".join(f"{size * unit:.4g}" for size in said)
            doubts.append(
                f"its sform has voxels of {_sizes(image, unit)} mm and is used; its header (pixdim) says {by_header} mm"
            )
        if header["qform_code"] > 0 and (apart := _apart(image)) > min(header.get_zooms()[:3]):
            doubts.append(f"qform and sform put its voxels up to {apart * unit:.1f} mm apart; the sform is used")
    elif (sizes := written["pixdim"][1:4]).min() <= 0:
        said, taken = (" x ".join(f"{size:g}" for size in three) for three in (sizes, header.get_zooms()[:3]))
        then = (
            "millimetres and millilitres may be wrong"
            if states_spacing(image)
            else "nothing is measured in millimetres"
        )
        doubts.append(f"voxel sizes of {said} mm in its header, taken for {taken}; {then}")
    return doubts


def states_spacing(image: nib.Nifti1Image) -> bool:
    """Whether a NIfTI file tells how large a voxel is, by its sform or along all sides of more than one voxel."""
    if not isinstance(image.header, nib.Nifti1Header) or image.header["sform_code"] > 0:
        return True
    sizes = written_header(image)["pixdim"][1:4]
    return all(size != 0 and np.isfinite(size) for size, side in zip(sizes, image.shape, strict=False) if side > 1)


def written_header(image: nib.Nifti1Image) -> nib.Nifti1Header:
    """The header as it lies in the file: nibabel mends what it reads."""
    with nib.openers.ImageOpener(image.get_filename()) as file:
        return type(image.header).from_fileobj(file, check=False)


def forms_of(image: nib.Nifti1Image) -> np.ndarray:
    """The value of :data:`NIFTI_FORMS` for a file: nothing else of its header, which may tell a patient."""
    kept = nib.Nifti1Header()
    kept["pixdim"][:4] = image.header["pixdim"][:4]
    for name in FORMS:
        kept[name] = image.header[name]
    return np.frombuffer(kept.binaryblock, np.uint8).copy()


def nifti_like(array: np.ndarray, meta: Mapping) -> nib.Nifti1Image:
    """A NIfTI image with the geometry of the file that was read, in its own unit, which the header names.

    A viewer then lays it on the file whether it heeds units or not, and whether it goes by the qform or the sform: of a
    NIfTI file both, and their codes, are kept. NIfTI has no name for centimetres and nanometres: what was read from
    those is in millimetres.
    """
    affine, factor = np.asarray(meta["scan_affine"], float), float(meta.get(MM_PER_UNIT, 1.0))
    unit = next((name for known, name in NIFTI.items() if np.isclose(known, factor)), None)
    affine = in_millimetres(affine, 1 / factor) if unit else affine
    header = None
    if NIFTI_FORMS in meta:
        header = nib.Nifti1Header(np.asarray(meta[NIFTI_FORMS], np.uint8).tobytes(), check=False)
        header.set_data_shape(array.shape)
        header.set_data_dtype(array.dtype)
        if not np.allclose(header.get_best_affine(), affine, rtol=1e-4, atol=1e-6 * np.abs(affine).max()):
            header = None  # a label on the grid of its image
    image = nib.Nifti1Image(array, affine if header is None else header.get_best_affine(), header)
    if factor != 1:
        image.header.set_xyzt_units(unit or "mm")
    return image


def box_corners(sides: Iterable[tuple[float, float]]) -> np.ndarray:
    """``[8,3]`` corners of the box between the two ends of each of its 3 sides."""
    return np.array(list(product(*sides)), float)


def _is_void(header: nib.Nifti1Header) -> bool:
    """Whether an sform is declared that is no geometry."""
    axes = header.get_sform()[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    with np.errstate(invalid="ignore"):  # of NaN
        return bool(header["sform_code"] > 0 and not abs(np.linalg.det(axes)) > 1e-9 * lengths.prod())


def _apart(image: nib.Nifti1Image) -> float:
    """The largest distance between where qform and sform put a voxel, in the file's unit."""
    ends = box_corners((0, side - 1) for side in (*image.shape, 1, 1)[:3])
    place = nib.affines.apply_affine
    return float(np.abs(place(image.get_qform(), ends) - place(image.get_sform(), ends)).max())


def _sizes(image: nib.Nifti1Image, unit: float) -> str:
    return " x ".join(f"{size * unit:.4g}" for size in nib.affines.voxel_sizes(image.affine))
