"""Which images a model was fitted to: short digests of their files' bytes, so that a calibration can leave them out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dino_uad.detector.model_file import read_model
from dino_uad.heads import DynamicBuffers

DIGESTS = "fitted_images.digests"
"""Their name in a model file."""


class FittedImages(DynamicBuffers):
    """Eight bytes an image, sorted. Not part of the fingerprint, which is compared and has one size for every model.

    A state dict brings its own length. MONAI's ``copy_model_state``, which copies equal shapes only, passes over it:
    such a network scores the same, and what looks at the digests reads the file.

    Attributes:
        digests: ``[n]`` int64, sorted, each once; empty where nothing is known.
    """

    dynamic_buffers = ("digests",)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("digests", torch.zeros(0, dtype=torch.int64))

    def add(self, digests: Tensor) -> None:
        """Take in those of a fit, ``[n]`` int64; those of an earlier one, which it went on from, stay."""
        self.digests = torch.cat([self.digests, digests.to(self.digests)]).unique()


def read_fitted_images(path: str | Path) -> frozenset[int]:
    """The digests in a model file; empty for one of an earlier version, which does not tell.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no model file.
    """
    return frozenset(read_model(path, mmap=True).get(DIGESTS, torch.zeros(0, dtype=torch.int64)).tolist())
