"""The DICOM files that a scan was read from, slice by slice of the array they became."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dino_uad.findings import LPS_TO_RAS

TOLERANCE = 0.05  # of a voxel, between a frame's position and the slice it became


class SourceFrame(Protocol):
    """The attributes used here of a frame that :class:`~dino_uad.transforms.dicom.DicomReader` found."""

    file: Path
    index: int
    """Index of the frame within its file, from 0."""
    frames: int
    """How many frames its file has."""
    shape: tuple[int, int]
    """Rows and columns."""
    position: tuple[float, ...] | None
    """Position of its first pixel, in DICOM's LPS millimetres; None of a radiograph."""


@dataclass(frozen=True)
class SourceScan:
    """Source images of a segmentation.

    Attributes:
        headers: data sets without pixels; one a slice, one enhanced multi-frame object, or one radiograph.
        slices: for every frame, in the order of ``headers`` (or of the frames of the one object), the index along the
            array's last axis; None where the array's slices are not the files' frames (a resampled scan).
    """

    headers: tuple[Dataset, ...]
    slices: tuple[int, ...] | None

    @classmethod
    def of(cls, frames: Sequence[SourceFrame], shape: Sequence[int], affine: NDArray) -> SourceScan:
        """The source of an array.

        Args:
            frames: that the reader found, in the order of its slices.
            shape: of the array ``(X, Y)`` or ``(X, Y, Z)``, X along the rows of the frames.
            affine: ``[4,4]``, voxel indices to millimetres, RAS+.

        Raises:
            ValueError: the frames have another size, or files share a UID.
        """
        rows, columns = frames[0].shape
        if (columns, rows) != tuple(shape[:2]):
            raise ValueError(
                f"{frames[0].file}: no DICOM image of {shape[1]} x {shape[0]} pixels found, "
                f"but one of {rows} x {columns}"
            )
        files = list(dict.fromkeys(frame.file for frame in frames))
        headers = tuple(_header(file) for file in files)
        if len({header.SOPInstanceUID for header in headers}) < len(headers):
            raise ValueError("files of the series share a SOPInstanceUID, so that none can be referred to")
        places = _places(frames, int(shape[2]) if len(shape) > 2 else 1, affine)
        whole = len(files) == len(frames) or (len(files) == 1 and len(frames) == frames[0].frames)
        if places is None or not whole:
            return cls(headers, None)
        if len(files) == 1:  # in the order of the frames in the object, not of the slices
            place_of = {frame.index: place for frame, place in zip(frames, places, strict=True)}
            return cls(headers, tuple(place_of[index] for index in sorted(place_of)))
        order = np.argsort(places)
        return cls(tuple(headers[k] for k in order), tuple(range(len(order))))


def _header(file: Path) -> Dataset:
    header = dcmread(file, stop_before_pixels=True, force=True)
    if "ImageOrientationPatient" not in header and "PatientOrientation" not in header:
        header.PatientOrientation = None  # it may be empty, but not absent (PS3.3, C.7.6.1), and is in exports
    return header


def _places(frames: Sequence[SourceFrame], depth: int, affine: NDArray) -> list[int] | None:
    """The array's slice that each frame became; None unless every slice is a frame."""
    if len(frames) != depth:
        return None
    if frames[0].position is None:
        return [0] if depth == 1 else None
    voxels = np.array([frame.position for frame in frames]) @ (to_voxel := np.linalg.inv(affine) @ LPS_TO_RAS)[:3, :3].T
    voxels += to_voxel[:3, 3]
    places = voxels[:, 2].round().astype(int)
    on_grid = np.abs(voxels - np.c_[np.zeros((depth, 2)), places]).max() < TOLERANCE
    return places.tolist() if on_grid and sorted(places) == list(range(depth)) else None
