"""What a method learns from normal embeddings and how it scores new ones; one folder a method."""

from dino_uad.heads.gradient import GradientHead
from dino_uad.heads.head import DynamicBuffers, Head
from dino_uad.heads.image_level import image_score
from dino_uad.heads.masking import nonempty_mask, patch_mean
from dino_uad.heads.mean_distance import MeanDistanceHead
from dino_uad.heads.neighbourhood import box_mean

__all__ = [
    "DynamicBuffers",
    "GradientHead",
    "Head",
    "MeanDistanceHead",
    "box_mean",
    "image_score",
    "nonempty_mask",
    "patch_mean",
]
