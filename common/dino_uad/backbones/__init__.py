"""Frozen DINO vision transformers: architectures, checkpoints, and where their weights come from."""

from dino_uad.backbones.architectures import STUDENTS, architecture, blocks_to_read
from dino_uad.backbones.backbone import PRECISIONS, DinoBackbone
from dino_uad.backbones.checkpoints import read_checkpoint, state_digest, to_huggingface
from dino_uad.backbones.packed import pack_state, rounded
from dino_uad.backbones.vit import VisionTransformer

__all__ = [
    "PRECISIONS",
    "STUDENTS",
    "DinoBackbone",
    "VisionTransformer",
    "architecture",
    "blocks_to_read",
    "pack_state",
    "read_checkpoint",
    "rounded",
    "state_digest",
    "to_huggingface",
]
