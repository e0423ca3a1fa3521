"""What lies on disk: which file is an image, a mask, of which patient, in which split."""

from dino_uad.data.collate import collate_slices, files_per_batch, stack_images
from dino_uad.data.folder_list import datalist
from dino_uad.data.preparation import prepare
from dino_uad.data.scan_dataset import FAILED, ScanDataset, collate_scans
from dino_uad.data.scan_list import ScanList
from dino_uad.data.section import section_of_files
from dino_uad.data.walk import may_be_image

__all__ = [
    "FAILED",
    "ScanDataset",
    "ScanList",
    "collate_scans",
    "collate_slices",
    "datalist",
    "files_per_batch",
    "may_be_image",
    "prepare",
    "section_of_files",
    "stack_images",
]
