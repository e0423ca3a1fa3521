"""Pixel and image metrics: streaming, on the device, summed over processes without gathering pixels."""

from dino_uad.metrics.aupro import AUPRO
from dino_uad.metrics.dice import DiceAtThresholds
from dino_uad.metrics.image import ImageCurves
from dino_uad.metrics.image_histograms import ImageHistograms
from dino_uad.metrics.image_intervals import ImageIntervals
from dino_uad.metrics.permutation import PermutationResult, permutation_test
from dino_uad.metrics.pixel import PixelCurves
from dino_uad.metrics.pixel_intervals import PixelIntervals
from dino_uad.metrics.threshold import ThresholdAtFPR

__all__ = [
    "AUPRO",
    "DiceAtThresholds",
    "ImageCurves",
    "ImageHistograms",
    "ImageIntervals",
    "PermutationResult",
    "PixelCurves",
    "PixelIntervals",
    "ThresholdAtFPR",
    "permutation_test",
]
