"""What all rows of one benchmark run share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Attributes:
        device: where the timed code runs.
        threads: of every library that takes part, peers included.
        repeats: timed runs of each variant after its warm-up.
        quick: small sizes, which exercise every row in seconds and say nothing about speed.
    """

    device: torch.device
    threads: int
    repeats: int = 5
    quick: bool = False

    def on_processor(self, aim: float) -> float | None:
        """An aim for processors alone: a GPU spends a short computation on starting its operations."""
        return aim if self.device.type == "cpu" else None

    def size(self, full: T, quick: T) -> T:
        """One of the two sizes."""
        return quick if self.quick else full
