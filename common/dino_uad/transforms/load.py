"""Load pictures and volumes with one transform, and refuse what cannot be scored with an error that names the file."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.image_reader import ImageReader
from monai.transforms import LoadImage, LoadImaged

from dino_uad.transforms.dicom import DicomReader, is_dicom
from dino_uad.transforms.itk_reader import AnyNameITKReader
from dino_uad.transforms.label_grid import Grid, bring_to_grid, full_affine
from dino_uad.transforms.mask_values import marked
from dino_uad.transforms.nifti import FloatNibabelReader
from dino_uad.transforms.readers import UnitPILReader

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
EXPECTED = "a picture (PNG, JPEG, BMP, TIFF) or a volume (NIfTI, NRRD, MHA/MHD, a DICOM file or series folder)"

# MONAI's loader makes all its readers; one logs that it cannot have nvImageCodec, which nobody asked for.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)

# What the project reads from the meta data. The rest (DICOM tags, NIfTI and NRRD text fields) may identify a patient.
META_KEYS = (
    "affine",
    "original_affine",
    "spatial_shape",
    "original_channel_dim",
    "space",
    "filename_or_obj",
    "unit_range",
    "type_range",
    "scan_affine",
    "scan_shape",
)


class LoadScan(LoadImage):
    """Load one picture ``[C,W,H]`` (C = 1 or 3) or volume ``[1,X,Y,Z]`` as a float32 MetaTensor, channel first.

    Follow it with ``OrientScand`` to get upright ``[C,H,W]`` and ``[1,H,W,D]``. The meta data keeps
    geometry only: no DICOM tag reaches a log, report or saved file. Further entries:

    - ``unit_range``: values are in [0, 1] already (8-bit and 16-bit pictures);
    - ``scan_shape``, ``scan_affine``: the file's own shape and affine, for saving on the same grid.

    A volume file of a single slice, ``(X,Y)`` or with one axis of size 1, is laid out as ``[1,X,Y,1]``. Where that
    slice is sagittal or coronal, ``affine`` is one of an axial slice (:func:`display_affine`) so that the same
    orientation step brings it upright; ``scan_affine`` stays true.

    Args:
        image_only: return the image, or ``(image, meta)``. MONAI Label sets it to False.
    """

    def __init__(self, image_only: bool = True) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about readers of MONAI's that are not used here
            super().__init__(image_only=image_only, dtype=np.float32, ensure_channel_first=True)
        # Tried from the last to the first, by file name; ITK takes what is left.
        self.readers = [AnyNameITKReader(), DicomReader(), FloatNibabelReader(), UnitPILReader()]

    def __call__(
        self,
        filename: str | os.PathLike,
        reader: ImageReader | None = None,
        series: str | None = None,
        grid: Grid | None = None,
    ):
        """Load ``filename``.

        Args:
            filename: a file, or the folder of a DICOM series.
            reader: used instead of the one that the file's type asks for.
            series: shell pattern that chooses among several stacks in one DICOM folder.
            grid: of the image that ``filename`` is the label of. A label volume on another grid is brought to it by
                its affine, voxels by their nearest neighbours.

        Raises:
            FileNotFoundError: no such file.
            ValueError: unreadable, truncated, of another dimension, empty, or with NaN or infinite values; or a label
                whose affine does not lay it on its image.
        """
        path = check_path(filename)
        if series is not None and DicomReader().verify_suffix(path):
            reader = DicomReader(series)
        try:
            loaded = super().__call__(path, reader)
        except Exception as error:
            raise ValueError(
                f"{path}: cannot be read: {first_line(error)}. Expected {EXPECTED}, complete and not damaged. "
                "Copy or export the file again, or leave it out (on_error='skip')."
            ) from error
        image = checked_scan(loaded if self.image_only else loaded[0], path, grid)
        return image if self.image_only else (image, image.meta)


class LoadScand(LoadImaged):
    """Dictionary version of :class:`LoadScan`; a ``LoadImaged``, because MONAI Label looks for that type.

    An entry may hold ``"series"``, which chooses among several stacks in the image's DICOM folder, and a list of files
    as a label: the parts of one annotation, which become one mask.

    Args:
        keys: keys that hold file names (or DICOM series folders): the image's, then those of its labels.
        allow_missing_keys: pass over absent keys, e.g. the label of a normal image.
        image_only: see :class:`LoadScan`.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False, image_only: bool = True) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            super().__init__(keys, image_only=image_only, allow_missing_keys=allow_missing_keys, overwriting=True)
        self._loader = LoadScan(image_only=image_only)

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Load the files; the first key is the image, and the grid to which labels of the others are brought."""
        result = dict(data)
        grid, series, is_label = None, result.get("series"), False
        for key, meta_key, postfix in self.key_iterator(result, self.meta_keys, self.meta_key_postfix):
            several = is_label and isinstance(result[key], list | tuple)
            loaded = [self._loader(name, reader, series, grid) for name in (result[key] if several else [result[key]])]
            images = loaded if self._loader.image_only else [image for image, _ in loaded]
            result[key] = image = joined(images) if several else images[0]
            if not self._loader.image_only:
                result[meta_key or f"{key}_{postfix}"] = image.meta
            if not is_label:
                grid, series, is_label = Grid.of(image), None, True
        return result


def joined(masks: Sequence[MetaTensor]) -> MetaTensor:
    """One mask ``[1,...]`` of 0 and 1 that marks what any of the masks does; ValueError where their sizes differ."""
    marks = [marked(mask).any(dim=0, keepdim=True) for mask in masks]
    for mask, mark in zip(masks, marks, strict=True):
        if mark.shape != marks[0].shape:
            raise ValueError(
                f"{mask.meta['filename_or_obj']}: the mask is {list(mark.shape[1:])}, another part of the same "
                f"annotation, {masks[0].meta['filename_or_obj']}, is {list(marks[0].shape[1:])}; expected equal sizes."
            )
    union = torch.stack(marks).any(dim=0).float()
    return MetaTensor(union, meta=dict(masks[0].meta))


def check_path(filename: str | os.PathLike) -> str:
    """Return the path as a string; raise when it does not exist, is empty or is of no known type."""
    if not isinstance(filename, str | os.PathLike):
        raise ValueError(f"expected one file name, found {type(filename).__name__}: {str(filename)[:80]!r}")
    path = Path(filename).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder. Expected {EXPECTED}; check the path.")
    if path.is_dir():
        return str(path)
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty (0 bytes). Expected {EXPECTED}. Copy or export it again.")
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        _check_compression(path, name)
    known = UnitPILReader().verify_suffix(name) or name.endswith((".nii", ".nii.gz", ".dcm", *ITK_SUFFIXES))
    if not known and not is_dicom(path):
        raise ValueError(f"{path}: not a supported file type. Expected {EXPECTED}. Convert it.")
    return str(path)


def _check_compression(path: Path, name: str) -> None:
    """Raise ValueError where a NIfTI file is compressed and its name says that it is not, or the reverse."""
    with open(path, "rb") as file:
        head = file.read(4)
    if head[:2] == b"\x1f\x8b" and not name.endswith(".gz"):
        found, ending = "compressed (gzip)", ".nii.gz"
    elif {int.from_bytes(head, order) for order in ("little", "big")} & {348, 540} and name.endswith(".gz"):
        found, ending = "not compressed", ".nii"
    else:
        return
    raise ValueError(f"{path}: the file is {found}, its name says otherwise. Let its name end with {ending}.")


def first_line(error: Exception) -> str:
    """Return the last non-empty line of an error's text: ITK and MONAI put the reason there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")


def checked_scan(image: MetaTensor, path: str, grid: Grid | None = None) -> MetaTensor:
    """Check dimension, size, values and geometry of ``[C,...]``; return it with the meta data of :class:`LoadScan`.

    A volume is brought to ``grid`` where there is one.
    """
    shape = tuple(image.shape[1:])
    picture = "unit_range" in image.meta
    if len(shape) not in (2, 3) or (image.shape[0] != 1 and not (picture and image.shape[0] == 3)):
        raise ValueError(
            f"{path}: found {image.shape[0]} channels or time points of shape {shape}; expected a picture "
            "(grey or RGB) or a 3-D volume with one value per voxel. Extract one channel or time point first."
        )
    if 0 in shape:
        raise ValueError(f"{path}: found shape {shape}, which has no pixels; expected at least 1 along each axis.")
    if not all(math.isfinite(end) for end in image.as_tensor().aminmax()):  # NaN is one of its ends
        bad = int((~torch.isfinite(image.as_tensor())).sum())
        raise ValueError(
            f"{path}: {bad} of {image.numel()} values are NaN or infinite; expected finite intensities. "
            "Replace them (for example by the background value) or leave the file out."
        )
    affine = np.asarray(image.meta["affine"], float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise ValueError(f"{path}: its affine {affine.round(4).tolist()} is singular; repair the file's geometry.")
    image.meta.setdefault("unit_range", False)
    image.meta["scan_shape"], image.meta["scan_affine"] = np.asarray(shape), affine
    if grid is not None and not picture:
        image = small_integers(bring_to_grid(image, grid))
        shape = tuple(image.meta["scan_shape"])
    if not picture and (len(shape) == 2 or 1 in shape):
        image = as_axial_slice(image)
    for key in set(image.meta) - set(META_KEYS):
        del image.meta[key]
    return image


def small_integers(label: MetaTensor) -> MetaTensor:
    """A label map of whole numbers up to 255 as uint8, a quarter of its memory; others as they are."""
    plain = label.as_tensor()
    low, high = (float(end) for end in plain.aminmax())
    if low < 0 or high > 255 or any((plane != plane.round()).any() for plane in plain.unbind(-1)):
        return label
    return MetaTensor(plain.to(torch.uint8), meta=dict(label.meta))


def as_axial_slice(image: MetaTensor) -> MetaTensor:
    """Lay a single-slice scan out as ``[1,X,Y,1]`` with an affine that ``Orientationd("PLS")`` turns upright."""
    affine = full_affine(np.asarray(image.meta["affine"], float))
    shape = tuple(image.shape[1:])
    data = image.as_tensor().reshape(1, *shape, *(1,) * (3 - len(shape)))
    single = 2 if len(shape) == 2 or shape[2] == 1 else shape.index(1)
    in_plane = [axis for axis in range(3) if axis != single]
    order = [*in_plane, single]
    data, affine = data.permute(0, *(axis + 1 for axis in order)), affine[:, [*order, 3]]
    meta = dict(image.meta)
    meta["affine"] = torch.from_numpy(display_affine(affine))
    meta["original_affine"], meta["spatial_shape"] = np.asarray(meta["affine"]), np.asarray(data.shape[1:])
    return MetaTensor(data.contiguous(), meta=meta)


def display_affine(affine: np.ndarray) -> np.ndarray:
    """Return the affine of an axial slice that is displayed as this slice (third column its normal) should be.

    Axial slices keep theirs. In the others superior takes the place of anterior (up) and, in sagittal ones,
    posterior that of left (right of the display).
    """
    *in_plane, normal = nib.aff2axcodes(affine)
    if normal in ("S", "I"):
        return affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    place = {"S": (1, 1), "I": (1, -1), "L": (0, -1), "R": (0, 1), "P": (0, -1), "A": (0, 1)}
    axial = np.diag([0, 0, spacing[2], 1])
    for column, code in enumerate(in_plane):
        world, sign = place[code]
        axial[world, column] = sign * spacing[column]
    return axial
