"""Findings as DICOM objects that refer to the series they were made in: a segmentation and a structured report."""

from dino_uad.dicom_output.segmentation import findings_segmentation
from dino_uad.dicom_output.source import SourceScan
from dino_uad.dicom_output.structured_report import findings_report

__all__ = ["SourceScan", "findings_report", "findings_segmentation"]
