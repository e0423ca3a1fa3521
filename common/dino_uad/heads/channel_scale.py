"""Channels brought to zero mean and unit variance, with the statistics of the training embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dino_uad.parallel import all_reduce_sum


class ChannelScale(nn.Module):
    """Subtracts each channel's mean and divides by its standard deviation, both measured once over normal patches.

    The variances of DINO channels differ by orders of magnitude; a squared error of raw channels is that of a few.

    Args:
        channels: number of channels ``C``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        self._sums: Tensor | None = None

    def forward(self, embeddings: Tensor) -> Tensor:
        """``[B,C,h,w]`` to standardised ``[B,C,h,w]`` float32."""
        return (embeddings.float() - self.mean) / self.std

    def log_volume(self) -> Tensor:
        """Logarithm of how much the map shrinks volumes of ``C`` dimensions: what a log-density loses, in nats."""
        return self.std.log().sum()

    @torch.no_grad()
    def measure(self, embeddings: Tensor, mask: Tensor | None = None) -> None:
        """Add the patches of ``[B,C,h,w]``, those where ``mask`` ``[B,1,h,w]`` is true, to the statistics."""
        rows = embeddings.double().movedim(1, -1)
        rows = rows.flatten(0, 2) if mask is None else rows[mask[:, 0]]
        count = rows.new_full((rows.shape[1],), len(rows))
        sums = torch.stack([count, rows.sum(dim=0), rows.square().sum(dim=0)])
        self._sums = sums if self._sums is None else self._sums + sums

    @torch.no_grad()
    def finish(self) -> None:
        """Turn the sums of all ranks into mean and standard deviation; a channel that never changes keeps its scale.

        Raises:
            RuntimeError: no patch was measured.
        """
        if self._sums is None:
            raise RuntimeError("no training batch to measure the channels on: check the training data list")
        count, total, squares = all_reduce_sum(self._sums)[0]
        if count[0] == 0:
            raise RuntimeError("no valid patch in the training images to measure the channels on")
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        self.mean.copy_(mean[:, None, None])
        self.std.copy_(torch.where(std > 1e-6, std, 1.0)[:, None, None])
        self._sums = None
