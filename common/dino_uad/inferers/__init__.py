"""Slice by slice inference on images and volumes."""

from dino_uad.inferers.slices import SliceOrImageInferer, smoothing_width

__all__ = [
    "SliceOrImageInferer",
    "smoothing_width",
]
