"""How a student is trained, and what each step draws: a function of the seed and the step's number alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dino_uad import parallel
from dino_uad.settings import require_count, require_number


@dataclass(frozen=True)
class Recipe:
    """How a student is trained.

    Attributes:
        steps: optimiser steps.
        batch_size: slices per step, over all ranks.
        image_size: side of the images in pixels; every second step has a quarter as many of twice the side.
        learning_rate: highest, after the warm-up.
        given_rate: share of it for what the student has from its teacher and shall keep.
        warmup: steps of linear increase.
        weight_decay: of AdamW, on matrices.
        ema: decay of the moving average of the weights; smaller during the first steps.
        seed: of the order and the variations.
        precision: ``float32``, or ``bfloat16`` autocast.
    """

    steps: int = 1000
    batch_size: int = 16
    image_size: int = 224
    learning_rate: float = 3e-4
    given_rate: float = 0.005
    warmup: int = 30
    weight_decay: float = 0.02
    ema: float = 0.99
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "image_size"):
            require_count(name, getattr(self, name))
        for name in ("warmup", "seed"):
            require_count(name, getattr(self, name), 0)
        for name in ("learning_rate", "given_rate", "weight_decay"):
            require_number(name, getattr(self, name), 0)
        require_number("ema", self.ema, 0, 1, ends="[)")

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to zero."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def draw(self, step: int, count: int, numbers: int) -> tuple[int, list[int], Tensor]:
        """Draw a step's image side, indices of ``count`` slices, and ``numbers`` random numbers for those of this rank.

        All ranks draw the same; of the slices each takes its :func:`~dino_uad.parallel.share`.
        """
        doubled = step % 2
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        slices = torch.randint(count, (self.batch_size // 4 if doubled else self.batch_size,), generator=generator)
        drawn = torch.rand(numbers, len(slices), generator=generator)
        mine = slice(parallel.rank(), None, parallel.world_size())
        return self.image_size * (1 + doubled), slices.tolist(), drawn[:, mine]
