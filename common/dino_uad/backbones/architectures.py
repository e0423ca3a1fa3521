"""The named backbones: shapes of the released DINOv2 and DINOv3 vision transformers of size S, B and L."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from dino_uad.backbones.vit import ViTConfig

SIZES = {
    "s": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "b": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "l": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}

# One line adds a backbone; its weights get an entry of the same name in `dino_uad.backbones.weights.registry`.
ARCHITECTURES: dict[str, ViTConfig] = {
    **{f"dinov2_vit{size}14": ViTConfig(**shape) for size, shape in SIZES.items()},
    **{f"dinov2_vit{size}14_reg4": ViTConfig(**shape, num_registers=4) for size, shape in SIZES.items()},
    **{
        f"dinov3_vit{size}16": ViTConfig(**shape, patch_size=16, num_registers=4, rope=True)
        for size, shape in SIZES.items()
    },
    # The student that ships with the package, see `dino_uad/backbones/weights/dino_uad_tiny14.md`.
    "dino_uad_tiny14": ViTConfig(embed_dim=384, depth=9, num_heads=6),
}
STUDENTS = {"dino_uad_tiny14": {5: 5, 8: 8}}
"""By student: the blocks to read and, for each, the block of the teacher that it imitates (from 0)."""


def architecture(name: str) -> ViTConfig:
    """Configuration of a named backbone; ValueError with the known names otherwise."""
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown backbone {name!r}; known: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def blocks_to_read(arch: str) -> list[int]:
    """The blocks whose patch embeddings serve best, joined: half-way and at three quarters of the depth.

    Of 12 blocks the 6th and the 9th. No single block is best on every kind of image, these two together are near the
    best; see ``docs/results.md`` for the data on which this was found. Of a student those that stand for them.
    """
    depth = architecture(arch).depth
    return list(STUDENTS.get(arch, (depth // 2 - 1, 3 * depth // 4 - 1)))


def guess_architecture(state: Mapping[str, Tensor]) -> str | None:
    """Name of the backbone whose shape a state dict with official keys has, None if it is none of them."""
    depth = 1 + max((int(key.split(".")[1]) for key in state if key.startswith("blocks.")), default=-1)
    registers = state.get("storage_tokens", state.get("register_tokens"))
    found = (
        state["cls_token"].shape[-1] if "cls_token" in state else None,
        depth,
        0 if registers is None else registers.shape[1],
        "rope_embed.periods" in state,
    )
    for name, config in ARCHITECTURES.items():
        if found == (config.embed_dim, config.depth, config.num_registers, config.rope):
            return name
    return None
