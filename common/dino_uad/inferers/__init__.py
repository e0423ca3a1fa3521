"""Slice by slice inference on images and volumes."""

from dino_uad.inferers.slice_inferer import SliceOrImageInferer, occupied_slices, smoothing_width
from dino_uad.inferers.slice_summary import SUMMARY

__all__ = [
    "SUMMARY",
    "SliceOrImageInferer",
    "occupied_slices",
    "smoothing_width",
]
