"""What a DICOM file's header says of its frames: where they lie, and what tells frames at one place apart."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from dino_uad.transforms.dicom.patient import patient_of

ANNOTATION = "DICOM annotation"
"""Prefix in :data:`NO_IMAGES` of objects that mark places in images."""
# Objects that are no image of the body, with pixels or without.
NO_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.66.4": f"{ANNOTATION} (segmentation)",
    "1.2.840.10008.5.1.4.1.1.66.5": f"{ANNOTATION} (surface segmentation)",
    "1.2.840.10008.5.1.4.1.1.66.7": f"{ANNOTATION} (label map segmentation)",
    "1.2.840.10008.5.1.4.1.1.481.3": f"{ANNOTATION} (radiotherapy structure set)",
    "1.2.840.10008.5.1.4.1.1.481.2": "DICOM radiotherapy dose",
    "1.2.840.10008.5.1.4.1.1.481.5": "DICOM radiotherapy plan",
    "1.2.840.10008.5.1.4.1.1.11.1": "DICOM presentation state",
}
CENTIMETRES = 3  # a value of PhysicalUnitsXDirection
DIRECTORY = "1.2.840.10008.1.3.10"

# What may tell frames at one position apart, from the plainest to the least: name, functional group, attribute.
MARKS = (
    ("stack", "FrameContentSequence", "StackID"),
    ("image type", "MRImageFrameTypeSequence", "FrameType"),
    ("image type", "CTImageFrameTypeSequence", "FrameType"),
    ("image type", None, "ImageType"),
    ("b-value", "MRDiffusionSequence", "DiffusionBValue"),
    ("direction", "MRDiffusionSequence", "DiffusionGradientOrientation"),
    ("echo time", "MREchoSequence", "EffectiveEchoTime"),
    ("echo time", None, "EchoTime"),
    ("inversion time", None, "InversionTime"),
    ("flip angle", None, "FlipAngle"),
    ("time point", "FrameContentSequence", "TemporalPositionIndex"),
    ("time point", None, "TemporalPositionIdentifier"),
    ("trigger time", None, "TriggerTime"),
    ("contrast", None, "ContrastBolusAgent"),
    ("kernel", None, "ConvolutionKernel"),
    ("energy", None, "KVP"),
    ("acquisition", "FrameContentSequence", "FrameAcquisitionNumber"),
    ("acquisition", None, "AcquisitionNumber"),
    ("acquisition time", None, "AcquisitionTime"),
)


@dataclass(frozen=True)
class Frame:
    """One picture of a DICOM file. Vectors are the patient's (left, posterior, superior), in mm."""

    file: Path
    index: int
    uid: str
    patient: str
    """A hash; see :func:`~dino_uad.transforms.dicom.patient.patient_of`."""
    study: str
    series: str
    series_number: str
    description: str
    modality: str
    instance: int
    shape: tuple[int, int]
    """Rows and columns."""
    samples: int
    spacing: tuple[float, float]
    """Distance between rows, and between columns, in mm; 1 where none is stated."""
    no_spacing: bool
    """Whether none is stated."""
    gap: float
    """Slice distance in mm from the header, for a stack of one frame."""
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    precision: float
    """The last decimal place to which positions are written."""
    frames: int
    """Frames of the file."""
    mosaic: bool
    marks: Mapping[str, str] = field(hash=False, compare=False)

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice."""
        row, column = np.reshape(self.orientation, (2, 3))
        return np.cross(row, column) / np.linalg.norm(np.cross(row, column))


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a file is DICOM by its content: the magic number, or, without the preamble, a first element's tag."""
    try:
        with open(path, "rb") as file:
            head = file.read(132)
    except OSError:
        return False
    if head[128:] == b"DICM":
        return True
    # Group 0002 or 0008, a low element, and a length or a value representation that a header begins with.
    group, element = int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little")
    explicit = head[4:6] in (b"UL", b"OB", b"UI", b"CS", b"SH", b"DA", b"TM")
    implicit = int.from_bytes(head[4:8], "little") in range(2, 65)
    return len(head) == 132 and group in (2, 8) and element <= 0x22 and (explicit or implicit)


def read_frames(path: Path) -> list[Frame] | str:
    """The frames of a DICOM file, or in a few words why it holds no image.

    Raises:
        ValueError: the file is empty or no DICOM file, or its header is damaged.
    """
    if not path.stat().st_size:
        raise ValueError("the file is empty (0 bytes)")
    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    kind = str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
    if kind == DIRECTORY or "DirectoryRecordSequence" in header:
        return "index of a DICOM medium (DICOMDIR)"
    if kind in NO_IMAGES:
        return NO_IMAGES[kind]
    if not all(name in header for name in ("Rows", "Columns", "BitsAllocated")):
        if not kind and "Modality" not in header:  # whatever the bytes of another file may mean
            raise ValueError("no DICOM element found in it")
        return f"DICOM object without pixels ({header.get('Modality') or 'of unknown modality'})"
    try:
        return [_frame(path, header, index) for index in range(int(header.get("NumberOfFrames") or 1))]
    except (TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"its DICOM header is damaged: {error}") from error


def functional(header: Dataset, index: int, group: str | None, name: str) -> Any:
    """An attribute of a frame: from its own functional groups, else from the shared ones, else from the file."""
    if group is not None:
        frames = header.get("PerFrameFunctionalGroupsSequence") or ()
        for groups in (*frames[index : index + 1], *(header.get("SharedFunctionalGroupsSequence") or ())):
            for item in groups.get(group) or ():
                if item.get(name) is not None:
                    return item[name].value
    return header.get(name)


def _frame(path: Path, header: Dataset, index: int) -> Frame:
    def find(group: str | None, name: str) -> Any:
        return functional(header, index, group, name)

    position = find("PlanePositionSequence", "ImagePositionPatient")
    orientation = find("PlaneOrientationSequence", "ImageOrientationPatient")
    lies = position is not None and orientation is not None and len(position) == 3 and len(orientation) == 6
    if lies:
        _require_plane(position, orientation)
    spacing = _stated_spacing(header, find("PixelMeasuresSequence", "PixelSpacing"))
    gap = find("PixelMeasuresSequence", "SpacingBetweenSlices") or find("PixelMeasuresSequence", "SliceThickness")
    marks: dict[str, str] = {}
    for mark, group, name in MARKS:
        value = find(group, name)
        if value not in (None, ""):
            marks.setdefault(mark, "/".join(map(str, value)) if hasattr(value, "append") else str(value))
    return Frame(
        file=path,
        index=index,
        uid=str(header.get("SOPInstanceUID", "")),
        patient=patient_of(header),
        study=str(header.get("StudyInstanceUID", "")),
        series=str(header.get("SeriesInstanceUID", "")),
        series_number=str(header.get("SeriesNumber") or ""),
        description=str(header.get("SeriesDescription") or ""),
        modality=str(header.get("Modality") or "image"),
        instance=int(header.get("InstanceNumber") or 0),
        shape=(int(header.Rows), int(header.Columns)),
        samples=3 if str(header.get("PhotometricInterpretation")).startswith("PALETTE") else _samples(header),
        spacing=spacing or (1.0, 1.0),
        no_spacing=spacing is None,
        gap=abs(float(gap)) if gap else 1.0,
        position=tuple(map(float, position)) if lies else None,
        orientation=tuple(map(float, orientation)) if lies else None,
        precision=max(map(_last_place, position)) if lies else 0.0,
        frames=int(header.get("NumberOfFrames") or 1),
        mosaic="MOSAIC" in (header.get("ImageType") or ()),
        marks=marks,
    )


def _require_plane(position: Sequence[Any], orientation: Sequence[Any]) -> None:
    """Raise ValueError where a position is no number, or the directions of rows and columns make no plane."""
    across = np.cross(*np.reshape(np.array(orientation, float), (2, 3)))
    if not np.isfinite(np.array(position, float)).all() or not np.linalg.norm(across) > 0.5:
        told = {"ImagePositionPatient": position, "ImageOrientationPatient": orientation}
        said = ", ".join(f"{name} {'/'.join(map(str, values))}" for name, values in told.items())
        raise ValueError(f"found {said}; expected a place, and two directions at right angles. Export the series again")


def _stated_spacing(header: Dataset, spacing: Any) -> tuple[float, float] | None:
    """Millimetres between rows and between columns by one attribute or another; None where the file states none."""
    for found in (spacing, header.get("ImagerPixelSpacing"), header.get("NominalScannedPixelSpacing")):
        if found and len(found) == 2 and all(0 < float(value) < math.inf for value in found):
            return float(found[0]), float(found[1])
    return _ultrasound_spacing(header)


def _ultrasound_spacing(header: Dataset) -> tuple[float, float] | None:
    """The spacing of an ultrasound image's one region, if it is in centimetres and covers the whole image."""
    regions = header.get("SequenceOfUltrasoundRegions") or ()
    if len(regions) != 1:
        return None
    region = regions[0]
    box = [region.get(f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
    units = [region.get(f"PhysicalUnits{axis}Direction") for axis in "YX"]
    steps = [abs(float(region.get(f"PhysicalDelta{axis}") or 0)) * 10 for axis in "YX"]
    if None in box or units != [CENTIMETRES] * 2 or not all(steps):
        return None
    whole = box[0] <= 0 and box[1] <= 0 and box[2] >= header.Columns - 1 and box[3] >= header.Rows - 1
    return (steps[0], steps[1]) if whole else None


def _samples(header: Dataset) -> int:
    return int(header.get("SamplesPerPixel") or 1)


def _last_place(value: Any) -> float:
    """The last decimal place to which a decimal string is written: 0.01 for 1.25."""
    try:
        return float(10.0 ** int(Decimal(str(value)).as_tuple().exponent))
    except (InvalidOperation, TypeError):
        return 1e-6
