"""How a student is trained, and what each step draws: a function of the seed and the step's number alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dino_uad import parallel


@dataclass(frozen=True)
class Recipe:
    """How a student is trained.

    Attributes:
        steps: optimiser steps.
        batch_size: slices per step, over all ranks.
        learning_rate: highest, after the warm-up.
        warmup: steps of linear increase.
        weight_decay: of AdamW, on matrices.
        ema: decay of the moving average of the weights; smaller during the first steps.
        seed: of the order.
        precision: ``float32``, or ``bfloat16`` autocast.
    """

    steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 3e-4
    warmup: int = 100
    weight_decay: float = 0.02
    ema: float = 0.998
    seed: int = 0
    precision: str = "float32"

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to zero."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def indices(self, step: int, count: int) -> list[int]:
        """This rank's slices of a step; all ranks together take consecutive parts of a new permutation every epoch."""
        first = step * self.batch_size
        permutations = {
            epoch: torch.randperm(count, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
            for epoch in range(first // count, (first + self.batch_size - 1) // count + 1)
        }
        return [int(permutations[i // count][i % count]) for i in range(first, first + self.batch_size)][
            parallel.rank() :: parallel.world_size()
        ]
