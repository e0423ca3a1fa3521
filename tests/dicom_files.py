"""Writes DICOM files of every sort that tests of reading need, with pydicom."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CLASSES = {
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "SR": "1.2.840.10008.5.1.4.1.1.88.11",
    "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "RTPLAN": "1.2.840.10008.5.1.4.1.1.481.5",
    "enhanced MR": "1.2.840.10008.5.1.4.1.1.4.1",
}
AXIAL, CORONAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)


def dataset(pixels: np.ndarray | None, kind: str = "MR", series: str = "1.2.3", **tags) -> Dataset:
    """A data set of integers ``[rows,columns]`` or ``[frames,rows,columns]``, or without pixels."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CLASSES[kind]
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.PatientName, data.PatientID, data.SeriesInstanceUID, data.SeriesNumber = "Doe^Jane", "J7", series, 1
    data.Modality = kind.split()[-1]
    if pixels is not None:
        kind = pixels.dtype
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = pixels.shape[-2:]
        data.BitsAllocated = data.BitsStored = 8 * kind.itemsize
        data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(kind.kind == "i")
        if pixels.ndim == 3:
            data.NumberOfFrames = len(pixels)
        data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def write(path: Path, data: Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def write_slices(
    folder: Path,
    array: np.ndarray,
    step=(0.0, 0.0, 4.0),
    orientation=AXIAL,
    origin=(10.0, 20.0, 30.0),
    name="{k:02d}.dcm",
    digits: int = 6,
    **tags,
) -> Path:
    """Write ``[X,Y,Z]`` as one file a slice, 2 mm by 3 mm pixels; tags may be functions of the slice's index."""
    for k in range(array.shape[2]):
        position = np.array(origin) + k * np.array(step)
        places = {
            "ImagePositionPatient": [f"{value:.{digits}f}"[:16] for value in position],
            "ImageOrientationPatient": [f"{value:.8f}"[:16] for value in orientation],
            "PixelSpacing": ["3", "2"],
            "SliceThickness": "4",
            "InstanceNumber": k + 1,
        }
        own = {tag: value(k) if callable(value) else value for tag, value in tags.items()}
        write(folder / name.format(k=k), dataset(np.ascontiguousarray(array[:, :, k].T), **places | own))
    return folder


def counted(shape=(5, 4, 6), dtype="u2") -> np.ndarray:
    """Values that are all different."""
    return np.random.default_rng(0).permutation(np.arange(1, np.prod(shape) + 1)).reshape(shape).astype(dtype)
