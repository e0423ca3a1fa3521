"""DICOM as it lies on disks: which files hold images, which frames make one scan, their values and their geometry."""

from dino_uad.transforms.dicom.folder import (
    choose,
    dicom_patients,
    dicom_scans,
    require_one_stack,
)
from dino_uad.transforms.dicom.frames import ANNOTATION, is_dicom
from dino_uad.transforms.dicom.pixels import stored_values
from dino_uad.transforms.dicom.reader import DicomReader

__all__ = [
    "ANNOTATION",
    "DicomReader",
    "choose",
    "dicom_patients",
    "dicom_scans",
    "is_dicom",
    "require_one_stack",
    "stored_values",
]
