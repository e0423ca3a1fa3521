"""The pictures a method learned from, where the data set that is evaluated still has them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


class TrainingPictures:
    """Looks up training images by their place in the fit; nothing is read before a method asks.

    Args:
        data: function that lists the training images, as the fit did.
        transform: the fit's preprocessing, from a list entry to ``image`` ``[C,H,W]``.
        anonymous_names: number the images instead of naming their files.
    """

    def __init__(
        self, data: Callable[[], Sequence[Mapping[str, Any]]], transform: Callable, anonymous_names: bool = False
    ) -> None:
        self._data, self.transform, self.anonymous_names = data, transform, anonymous_names

    @cached_property
    def entries(self) -> list[Mapping[str, Any]]:
        """The training list; empty where the data set has no training images (any more)."""
        try:
            return list(self._data())
        except (OSError, ValueError) as error:
            logger.info(f"the report shows no training images: {error}")
            return []

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        """File name of a training image, or its number."""
        return f"training image {index}" if self.anonymous_names else Path(str(self.entries[index]["image"])).name

    def image(self, index: int) -> Tensor | None:
        """``[C,H,W]`` as the fit saw it; None if it cannot be read or is a volume of several slices."""
        try:
            slices = self.transform(dict(self.entries[index]))
        except (OSError, ValueError, RuntimeError) as error:
            logger.info(f"the report cannot show {self.name(index)}: {error}")
            return None
        slices = slices if isinstance(slices, list) else [slices]
        return torch.as_tensor(slices[0]["image"]).as_subclass(Tensor) if len(slices) == 1 else None
