"""Pixel and image metrics: streaming, on the device, summed over processes without gathering pixels."""

from dino_uad.metrics.aupro import AUPRO
from dino_uad.metrics.bootstrap import group_keys
from dino_uad.metrics.closer_look import CloserLook
from dino_uad.metrics.curves import average_precision, tied_levels
from dino_uad.metrics.dice import DiceAtThresholds, dice_of_counts, overlap_counts
from dino_uad.metrics.froc import FALSE_FINDINGS, FROC
from dino_uad.metrics.group_levels import GroupLevels
from dino_uad.metrics.histogram import ScoreHistogram
from dino_uad.metrics.image_curves import ImageCurves
from dino_uad.metrics.image_intervals import ImageIntervals
from dino_uad.metrics.label_maps import LabelMaps
from dino_uad.metrics.likelihood import MeanLogLikelihood
from dino_uad.metrics.permutation import holm, permutation_test
from dino_uad.metrics.pixel_curves import PixelCurves
from dino_uad.metrics.pixel_intervals import PixelIntervals
from dino_uad.metrics.select import grouped_images, grouped_pixels, images, is_anomalous, pixels, scans
from dino_uad.metrics.threshold_at_fpr import ThresholdAtFPR

__all__ = [
    "AUPRO",
    "FALSE_FINDINGS",
    "FROC",
    "CloserLook",
    "DiceAtThresholds",
    "GroupLevels",
    "ImageCurves",
    "ImageIntervals",
    "LabelMaps",
    "MeanLogLikelihood",
    "PixelCurves",
    "PixelIntervals",
    "ScoreHistogram",
    "ThresholdAtFPR",
    "average_precision",
    "dice_of_counts",
    "group_keys",
    "grouped_images",
    "grouped_pixels",
    "holm",
    "images",
    "is_anomalous",
    "overlap_counts",
    "permutation_test",
    "pixels",
    "scans",
    "tied_levels",
]
