"""Dirichlet process mixture of patch embeddings (MICCAI 2025), streaming EM."""

from dino_uad.heads.dpmm.gaussian import Components, log_joint
from dino_uad.heads.dpmm.head import DPMMHead

__all__ = [
    "Components",
    "DPMMHead",
    "log_joint",
]
