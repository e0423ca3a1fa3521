"""MONAI dictionary transforms: reading, orienting, slices, intensities, saving."""

from dino_uad.transforms.anomalous_labels import checked_labels, label_values
from dino_uad.transforms.appearance import looks
from dino_uad.transforms.dicom import (
    ANNOTATION,
    DicomReader,
    dicom_patients,
    dicom_scans,
    is_dicom,
    require_one_stack,
    stored_values,
)
from dino_uad.transforms.extract_slices import ExtractSlicesd
from dino_uad.transforms.fill_label import FillLabeld
from dino_uad.transforms.foreground_mask import ForegroundMaskd, to_patches
from dino_uad.transforms.intensity import ScaleToUnitd
from dino_uad.transforms.itk_reader import itk_header
from dino_uad.transforms.label_grid import Grid, require_explained
from dino_uad.transforms.leave_out import LeaveOutSlicesd
from dino_uad.transforms.load import LoadScan, LoadScand, first_line
from dino_uad.transforms.mask_values import marked
from dino_uad.transforms.open_picture import bits, opened, stored_size, turned
from dino_uad.transforms.options import CheckOptions
from dino_uad.transforms.orient import OrientScand
from dino_uad.transforms.own_results import MARK, is_own_result, png_mark
from dino_uad.transforms.picture_reader import UnitPILReader
from dino_uad.transforms.picture_values import values_of
from dino_uad.transforms.read_files import files_of
from dino_uad.transforms.resize import InPlaneResized
from dino_uad.transforms.rotate import RotatedViewsd
from dino_uad.transforms.save import SaveMapd, anonymous_name, is_picture, on_scan_grid
from dino_uad.transforms.save_dicom import SaveDicomd
from dino_uad.transforms.score_scan import ScoreScand
from dino_uad.transforms.served_map import ServedMapd
from dino_uad.transforms.suffixes import NIFTI_SUFFIXES, PICTURE_SUFFIXES, VOLUME_SUFFIXES, image_name
from dino_uad.transforms.threshold import NUMBERS, ThresholdMapd
from dino_uad.transforms.unscored import NOTHING_SCORED, nothing_scored

__all__ = [
    "ANNOTATION",
    "MARK",
    "NIFTI_SUFFIXES",
    "NOTHING_SCORED",
    "NUMBERS",
    "PICTURE_SUFFIXES",
    "VOLUME_SUFFIXES",
    "CheckOptions",
    "DicomReader",
    "ExtractSlicesd",
    "FillLabeld",
    "ForegroundMaskd",
    "Grid",
    "InPlaneResized",
    "LeaveOutSlicesd",
    "LoadScan",
    "LoadScand",
    "OrientScand",
    "RotatedViewsd",
    "SaveDicomd",
    "SaveMapd",
    "ScaleToUnitd",
    "ScoreScand",
    "ServedMapd",
    "ThresholdMapd",
    "UnitPILReader",
    "anonymous_name",
    "bits",
    "checked_labels",
    "dicom_patients",
    "dicom_scans",
    "files_of",
    "first_line",
    "image_name",
    "is_dicom",
    "is_own_result",
    "is_picture",
    "itk_header",
    "label_values",
    "looks",
    "marked",
    "nothing_scored",
    "on_scan_grid",
    "opened",
    "png_mark",
    "require_explained",
    "require_one_stack",
    "stored_size",
    "stored_values",
    "to_patches",
    "turned",
    "values_of",
]
