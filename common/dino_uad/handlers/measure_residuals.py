"""What an autoregressive head's errors on the training images are like: to choose an epoch by, and to score by."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from ignite.engine import Engine, Events

from dino_uad.detector import AnomalyDetector
from dino_uad.engines import unpack
from dino_uad.exact import without_autocast

CHOOSING = 16
"""Batches of the training loader that tell the likelihood of one epoch from that of another."""
SCORING = 64
"""Batches for the covariance that scores: errors of neighbouring patches are alike, so that many rows say little."""


class MeasureResiduals:
    """Measures the covariance of the training residuals: before each validation, and once more for the model.

    So the density that the held-out images are judged by is learned from the training images alone: its likelihood on
    normal validation images chooses the epoch, and thresholds calibrated on them hold for new ones. It measures after
    the last step of an epoch, before the handlers of the epoch's end, wherever in the list it stands; and at the end of
    the fit, so it stands after :class:`~dino_uad.handlers.fit_checkpoint.FitCheckpoint`, which restores the best epoch,
    and before :class:`~dino_uad.handlers.finish.FinishFit`, which calibrates it.

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
        """Register on the trainer's ``ITERATION_COMPLETED``, of the last one before a validation, and ``COMPLETED``."""
        engine.add_event_handler(Events.ITERATION_COMPLETED(event_filter=self._before_validation), self, False)
        engine.add_event_handler(Events.COMPLETED, self, True)

    def _before_validation(self, engine: Engine, iteration: int) -> bool:
        return iteration % engine.state.epoch_length == 0 and engine.state.epoch % self.interval == 0

    @torch.no_grad()
    def __call__(self, engine: Engine, scored: bool) -> None:
        head = self.network.head
        if not head.measures_residuals:
            return
        training = head.training
        head.eval()
        with without_autocast(torch.device(engine.state.device)):
            for batch in islice(self.loader, SCORING if scored else CHOOSING):
                embeddings, _, mask = unpack(batch, engine.state.device)
                head.measure_residuals(self.network.prepare(embeddings), mask, scored)
            head.end_measuring(scored)
        head.train(training)
