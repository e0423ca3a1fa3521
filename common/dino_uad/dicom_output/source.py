"""The DICOM files that a scan was read from, slice by slice of the array they became."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # between DICOM's millimetres and RAS+, either way
TOLERANCE = 0.05  # of a voxel, between a frame's position and the slice it became


@dataclass(frozen=True)
class SourceScan:
    """What a segmentation refers to.

    Attributes:
        headers: data sets without pixels; one a slice, one enhanced multi-frame object, or one radiograph.
        slices: for every frame, in the order of ``headers`` (or of the frames of the one object), the index along the
            array's last axis; None where the array's slices are not the files' frames (a resampled scan).
    """

    headers: tuple[Dataset, ...]
    slices: tuple[int, ...] | None

    @classmethod
    def find(cls, path: str | Path, shape: Sequence[int], affine: NDArray) -> SourceScan:
        """The series behind an array.

        Args:
            path: the DICOM file, or the folder with the series.
            shape: of the array ``(X, Y)`` or ``(X, Y, Z)``, X along the rows of the frames.
            affine: ``[4,4]``, voxel indices to millimetres, RAS+.

        Raises:
            ValueError: no DICOM image of that size is there.
        """
        size = (int(shape[1]), int(shape[0]))  # Rows, Columns
        series: dict[str, list[Dataset]] = defaultdict(list)
        for header in _headers(Path(path)):
            if (header.get("Rows"), header.get("Columns")) == size:
                series[header.SeriesInstanceUID].append(header)
        if not series:
            raise ValueError(f"{path}: no DICOM image of {size[0]} x {size[1]} pixels found")
        depth = int(shape[2]) if len(shape) > 2 else 1
        for headers in series.values():
            placed = _placed(headers, depth, affine)
            if placed is not None:
                return placed
        return cls(tuple(max(series.values(), key=len)), None)


def _headers(path: Path) -> Iterator[Dataset]:
    """The headers of the DICOM images at ``path``; other files are passed over."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        try:
            header = dcmread(file, stop_before_pixels=True) if file.is_file() else Dataset()
        except (InvalidDicomError, OSError, ValueError):
            continue
        if "Rows" in header and "SeriesInstanceUID" in header:
            if "ImageOrientationPatient" not in header and "PatientOrientation" not in header:
                header.PatientOrientation = None  # it may be empty, but not absent (PS3.3, C.7.6.1), and is in exports
            yield header


def _placed(headers: Sequence[Dataset], depth: int, affine: NDArray) -> SourceScan | None:
    """The files of one series that lie on the array's slices, if they fill them all."""
    to_voxel = np.linalg.inv(affine) @ LPS
    found: dict[int, tuple[Dataset, int]] = {}
    frames = 0
    for header in headers:
        positions = _positions(header)
        frames = max(frames, len(positions))
        for frame, position in enumerate(positions):
            if position is None:
                if depth == 1 and len(headers) == len(positions) == 1:
                    return SourceScan((header,), (0,))
                return None
            voxel = to_voxel @ [*position, 1.0]
            slice_index = round(float(voxel[2]))
            if np.abs(voxel[:3] - [0, 0, slice_index]).max() < TOLERANCE and 0 <= slice_index < depth:
                found.setdefault(slice_index, (header, frame))
    if len(found) != depth:
        return None
    if frames == 1:
        return SourceScan(tuple(found[index][0] for index in range(depth)), tuple(range(depth)))
    (header,) = {id(one): one for one, _ in found.values()}.values() if len(headers) == 1 else (None,)
    if header is None or depth != frames:
        return None
    by_frame = {frame: index for index, (_, frame) in found.items()}
    return SourceScan((header,), tuple(by_frame[frame] for frame in range(frames)))


def _positions(header: Dataset) -> list[Any]:
    """``ImagePositionPatient`` of each frame; None where a frame has none (a radiograph)."""
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        return [header.get("ImagePositionPatient")]
    shared = header.SharedFunctionalGroupsSequence[0] if "SharedFunctionalGroupsSequence" in header else Dataset()
    planes = [(group if "PlanePositionSequence" in group else shared).get("PlanePositionSequence") for group in groups]
    return [plane[0].get("ImagePositionPatient") if plane else None for plane in planes]
