"""DINO-AD (2026): clusters of the most similar normal images."""

from dino_uad.heads.dino_ad.head import DinoADHead

__all__ = [
    "DinoADHead",
]
