"""Load pictures and volumes with one transform, and refuse what cannot be scored with an error that names the file."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.image_reader import ImageReader
from monai.transforms import LoadImage, LoadImaged

from dino_uad.transforms.anomalous_labels import checked_labels, with_labels
from dino_uad.transforms.checked_scan import checked_scan
from dino_uad.transforms.dicom import DicomReader
from dino_uad.transforms.itk_reader import AnyNameITKReader
from dino_uad.transforms.label_grid import Grid
from dino_uad.transforms.mask_values import marked
from dino_uad.transforms.nifti import FloatNibabelReader
from dino_uad.transforms.paths import EXPECTED, check_path
from dino_uad.transforms.picture_reader import UnitPILReader

# MONAI's loader makes all its readers; one logs that it cannot have nvImageCodec, which nobody asked for.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)


class LoadScan(LoadImage):
    """Load one picture ``[C,W,H]`` (C = 1 or 3) or volume ``[1,X,Y,Z]`` as a float32 MetaTensor, channel first.

    Follow it with ``OrientScand`` to get upright ``[C,H,W]`` and ``[1,H,W,D]``. The meta data keeps
    geometry only: no DICOM tag reaches a log, report or saved file. Further entries:

    - ``picture``: whether it is one (PNG, JPEG, BMP, TIFF, colour DICOM), which has no millimetres; its reader knows;
    - ``unit_range``: values are in [0, 1] already (8-bit and 16-bit pictures);
    - ``scan_shape``, ``scan_affine``: the file's own shape and affine, for saving on the same grid;
    - ``uneven_slices``: why that affine does not tell where all slices lie; empty where it does;
    - ``no_spacing``: why it has no millimetres, the size of a voxel being made up; empty where it has.

    A volume file of a single slice, ``(X,Y)`` or with one axis of size 1, is laid out as ``[1,X,Y,1]``. Where that
    slice is sagittal or coronal, ``affine`` is one of an axial slice
    (:func:`~dino_uad.transforms.axial_slice.display_affine`) so that the same orientation step brings it upright;
    ``scan_affine`` stays true.

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
        anomalous_labels: Sequence[int] | None = None,
    ):
        """Load ``filename``.

        Args:
            filename: a file, or the folder of a DICOM series.
            reader: used instead of the one that the file's type asks for.
            series: shell pattern that chooses among several stacks in one DICOM folder.
            grid: of the image that ``filename`` is the label of. A label volume on another grid is brought to it by
                its affine, voxels by their nearest neighbours.
            anomalous_labels: values of a label map that mark anomalies: it becomes 1 there and 0 elsewhere, uint8.

        Raises:
            FileNotFoundError: no such file.
            ValueError: unreadable, truncated, of another dimension, empty, or with NaN or infinite values; a label
                whose affine does not lay it on its image, or no label map where ``anomalous_labels`` name its values.
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
        if (labels := checked_labels(anomalous_labels)) is not None:
            image = with_labels(image, labels)
        return image if self.image_only else (image, image.meta)


class LoadScand(LoadImaged):
    """Dictionary version of :class:`LoadScan`; a ``LoadImaged``, because MONAI Label looks for that type.

    An entry may hold ``"series"``, which chooses among several stacks in the image's DICOM folder, and a list of files
    as a label: the parts of one annotation, which become one mask. ``"anomalous_labels"``, a list of whole numbers,
    says which values of its labels mark anomalies; they become 1, all others 0. Without it, labels keep their values.

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
        grid, series, labels, is_label = None, result.get("series"), None, False
        for key, meta_key, postfix in self.key_iterator(result, self.meta_keys, self.meta_key_postfix):
            several = is_label and isinstance(result[key], list | tuple)
            names = result[key] if several else [result[key]]
            loaded = [self._loader(name, reader, series, grid, labels) for name in names]
            images = loaded if self._loader.image_only else [image for image, _ in loaded]
            result[key] = image = joined(images) if several else images[0]
            if not self._loader.image_only:
                result[meta_key or f"{key}_{postfix}"] = image.meta
            if not is_label:
                grid, series, labels, is_label = Grid.of(image), None, result.get("anomalous_labels"), True
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


def first_line(error: Exception) -> str:
    """Return the last non-empty line of an error's text: ITK and MONAI put the reason there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")
