"""Spatial autoregressive model of the embedding grid (2026)."""

from dino_uad.heads.spatial_ar.head import SpatialARHead

__all__ = [
    "SpatialARHead",
]
