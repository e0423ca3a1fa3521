"""What a training goes on from: its state in a file, taken up by the same training alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dino_uad.digests import digest_code
from dino_uad.torch_files import load_parts

PARTS = ("identity", "step", "losses", "weights", "average", "optimizer")
ROOMS = ("backbones", "distill", "products.py")
"""Of this package: the code that a step depends on."""


def read_state(path: Path, identity: Mapping[str, Any], device: torch.device) -> dict[str, Any] | None:
    """The :data:`PARTS` of a checkpoint; None where there is none, or, with a warning, where it is damaged.

    Raises:
        ValueError: it is of a training of another identity.
    """
    state = load_parts(path, PARTS, "training", device)
    if state is not None and state["identity"] != identity:
        different = [key for key, value in identity.items() if state["identity"].get(key) != value]
        raise ValueError(
            f"{path} belongs to a run with another {', '.join(different)}; continue with the same arguments, images "
            "and version, choose another output folder, or delete that file to start again"
        )
    return state


def code_version() -> str:
    """Digest of :data:`ROOMS`, and of the version of torch."""
    return digest_code(ROOMS, ("torch",))
