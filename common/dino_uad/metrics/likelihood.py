"""Mean validation log-likelihood, the number that selects a model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from torch import Tensor


class MeanLogLikelihood(Metric):
    """Mean over all images of their log-likelihood per patch; NaN for no image.

    (ignite's ``Average`` adds one-dimensional outputs element by element instead of over the batch.)

    Args:
        output_transform: from the engine's output to ``[B]`` log-likelihoods.
        device: where the sum lives.
    """

    def __init__(
        self,
        output_transform: Callable = lambda output: output["log_likelihood"],
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(output_transform, device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all images."""
        self._sum = torch.zeros((), dtype=torch.float64, device=self._device)
        self._count = torch.zeros((), dtype=torch.float64, device=self._device)

    @reinit__is_reduced
    def update(self, output: Tensor) -> None:
        """Add the log-likelihoods ``[B]`` of a batch; ``B`` may be 0."""
        self._sum += output.detach().double().sum().to(self._device)
        self._count += len(output)

    @sync_all_reduce("_sum", "_count")
    def compute(self) -> float:
        """The mean over all processes."""
        return float(self._sum / self._count)
