"""Writes DICOM series as a scanner does: every attribute that the standard asks of an MR image, files in any order."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_series(folder: Path, volume: np.ndarray, affine: np.ndarray, seed: int = 0) -> Path:
    """Write int16 ``[X,Y,Z]`` with an affine to RAS+ millimetres as an MR series whose file names tell nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    study, series, frame = (generate_uid(entropy_srcs=[str(seed), word]) for word in ("study", "series", "frame"))
    for z in range(volume.shape[2]):
        image = _image(f"{seed}-{z}")
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.ImagePositionPatient = [float(f"{v:.6f}") for v in (lps @ [0, 0, z, 1])[:3]]
        image.ImageOrientationPatient = [float(f"{v:.8f}") for v in (lps[:3, :2] / spacing[:2]).T.ravel()]
        image.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        image.SliceThickness, image.InstanceNumber = float(spacing[2]), z + 1
        image.Rows, image.Columns = volume.shape[1], volume.shape[0]
        image.PixelData = np.ascontiguousarray(volume[:, :, z].T.astype(np.int16)).tobytes()
        image.save_as(folder / f"{rng.integers(1 << 40):012x}.dcm", enforce_file_format=True)
    return folder


def write_radiograph(path: Path, width: int, height: int, seed: int = 0) -> Path:
    """Write a computed radiograph: no position, no orientation, no frame of reference."""
    image = _image(f"radiograph {seed}")
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    for name in (
        "ScanningSequence",
        "SequenceVariant",
        "ScanOptions",
        "MRAcquisitionType",
        "EchoTime",
        "RepetitionTime",
    ):
        delattr(image, name)
    image.Modality, image.BodyPartExamined, image.ViewPosition = "CR", "CHEST", "PA"
    image.StudyInstanceUID, image.SeriesInstanceUID = (generate_uid(entropy_srcs=[str(seed), w]) for w in ("cr", "s"))
    image.InstanceNumber, image.Rows, image.Columns = 1, height, width
    pixels = np.random.default_rng(seed).integers(1, 900, (height, width), dtype=np.int16)
    image.PixelData = pixels.tobytes()
    image.save_as(path, enforce_file_format=True)
    return path


def _image(name: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name])
    image = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "Doe^Jane", "P-17", "19700101", "F"
    image.StudyDate, image.StudyTime, image.AccessionNumber = "20240101", "101500", "A1"
    image.ReferringPhysicianName, image.StudyID, image.SeriesNumber, image.Modality = "", "1", 3, "MR"
    image.Manufacturer, image.PositionReferenceIndicator, image.Laterality = "Maker", "", ""
    image.ImageType, image.ScanningSequence, image.SequenceVariant = ["ORIGINAL", "PRIMARY"], "SE", "NONE"
    image.ScanOptions, image.MRAcquisitionType, image.EchoTime, image.EchoTrainLength = "", "2D", 100.0, 1
    image.RepetitionTime, image.SamplesPerPixel, image.PhotometricInterpretation = 9000.0, 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.PatientPosition = "HFS"
    return image
