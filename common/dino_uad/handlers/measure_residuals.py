"""Between training and validation of an autoregressive head: how large its errors on the training images are."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from ignite.engine import Engine, Events

from dino_uad.detector import AnomalyDetector
from dino_uad.engines import unpack

BATCHES = 16  # of the training loader: enough rows for a covariance, however large the data set


class MeasureResiduals:
    """Measures the covariance of the training residuals before each validation, whose likelihood needs one.

    So the density that the held-out images are judged by is learned from the training images alone: its likelihood on
    normal validation images chooses the epoch, and thresholds calibrated on them hold for new ones. It measures after
    the last step of an epoch, before the handlers of the epoch's end, wherever in the list it stands.

    Args:
        network: the detector.
        loader: embeddings of the training images.
        interval: epochs between validations.
    """

    def __init__(self, network: AnomalyDetector, loader: Iterable, interval: int = 1) -> None:
        self.network = network
        self.loader = loader
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Register on the trainer's ``ITERATION_COMPLETED``, of the last iteration before a validation."""
        engine.add_event_handler(Events.ITERATION_COMPLETED(event_filter=self._before_validation), self)

    def _before_validation(self, engine: Engine, iteration: int) -> bool:
        return iteration % engine.state.epoch_length == 0 and engine.state.epoch % self.interval == 0

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        head = self.network.head
        if head.density is None:
            return
        training = head.training
        head.eval()
        for batch in islice(self.loader, BATCHES):
            embeddings, _, mask = unpack(batch, engine.state.device)
            head.measure_residuals(embeddings, mask)
        head.end_measuring()
        head.train(training)
