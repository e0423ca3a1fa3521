"""Batches of cached embeddings as input and target of a head that is trained by gradients, with input noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import PrepareBatch
from torch import Tensor

from dino_uad import parallel
from dino_uad.engines.batch import unpack
from dino_uad.heads import GradientHead
from dino_uad.settings import require_number


class PrepareEmbedding(PrepareBatch):
    """Turns ``{"embedding", "cls", "foreground"}`` into ``noisy, (clean, mask)`` (Erdil et al., arXiv 2603.02974).

    In a fraction of the batches Gaussian noise is added to the input, never to the target. Every image draws from a
    generator seeded by (seed, iteration, row in the global batch): a run that was killed and resumed, and a batch that
    is split over several ranks, see the same noise. The iteration counts over all epochs, as ignite restores it.

    Args:
        noise_scale: standard deviation of the noise in units of the spatial one of each channel in each image.
        noise_probability: fraction of the batches that get noise.
        seed: seed of the run.
    """

    head: GradientHead
    """The trainer's head, set by :meth:`attach`."""

    def __init__(self, noise_scale: float = 0.03, noise_probability: float = 0.2, seed: int = 0) -> None:
        require_number("noise_scale", noise_scale, 0)
        require_number("noise_probability", noise_probability, 0, 1)
        self.noise_scale = noise_scale
        self.noise_probability = noise_probability
        self.seed = seed
        self.iteration = 0

    def settings(self) -> dict[str, float]:
        """Settings that decide the noise, with the iteration."""
        return {
            "noise_scale": self.noise_scale,
            "noise_probability": self.noise_probability,
            "seed": self.seed,
        }

    def attach(self, engine: Engine) -> None:
        """Follow the trainer's iterations and ask its head: MONAI passes neither to a ``PrepareBatch``."""
        self.head = engine.network
        engine.add_event_handler(Events.ITERATION_STARTED, self.follow)

    def follow(self, engine: Engine) -> None:
        """Take over the number of the iteration that starts."""
        self.iteration = engine.state.iteration

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the input ``[B,C,h,w]`` float32, and its target: clean embeddings and valid patches ``[B,1,h,w]``."""
        embeddings, _, mask = unpack(batchdata, batchdata["embedding"].device if device is None else device)
        clean = self.head.standardized(self.head.prepare(embeddings))
        if mask is None:
            mask = torch.ones_like(clean[:, :1], dtype=torch.bool)
        chosen = np.random.default_rng([self.seed, self.iteration]).random() < self.noise_probability
        return (clean + self._noise(clean) if chosen and self.noise_scale else clean), (clean, mask)

    def _noise(self, clean: Tensor) -> Tensor:
        """``[B,C,h,w]`` noise; the row of an image counts from the first rank's first image."""
        offset = parallel.own_place(parallel.counts(len(clean), clean.device)).start
        if not len(clean):
            return clean
        generator = torch.Generator(clean.device)
        noise = torch.empty_like(clean)
        for row in range(len(clean)):
            entropy = np.random.SeedSequence([self.seed, self.iteration, offset + row])
            generator.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
            noise[row].normal_(generator=generator)
        return noise * self.noise_scale * clean.std(dim=(2, 3), correction=0, keepdim=True)
