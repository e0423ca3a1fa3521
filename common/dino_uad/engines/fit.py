"""The training engine of the heads that learn by statistics instead of gradients."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import torch
from ignite.engine import Events
from monai.engines import Trainer
from monai.utils import CommonKeys
from torch import Tensor

from dino_uad.detector import AnomalyDetector
from dino_uad.engines.batch import unpack

logger = logging.getLogger(__name__)


class HeadTrainer(Trainer):
    """Streams embedding batches through ``network.head.fit_batch`` and closes each epoch with ``head.end_epoch``.

    ``engine.state.output`` is ``[{"loss": ..., **what fit_batch returned}]``, the form that MONAI's logging and
    tracking handlers read; the loss is minus the log-likelihood, 0 where the head reports none.

    Args:
        device: where the head lives.
        max_epochs: passes over the training embeddings; one is made for heads that need no more, whatever is asked
            (MONAI Label asks for 50).
        train_data_loader: batches of :class:`~dino_uad.embeddings.loader.EmbeddingLoader`.
        network: the detector whose head is fitted.
        train_handlers: ignite handlers; ``end_epoch`` runs before any of theirs.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable,
        network: AnomalyDetector,
        train_handlers: Sequence | None = None,
    ) -> None:
        if network.head.single_pass and max_epochs > 1:
            logger.info(f"{type(network.head).__name__} needs one pass over the data: 1 epoch instead of {max_epochs}")
            max_epochs = 1
        super().__init__(device=device, max_epochs=max_epochs, data_loader=train_data_loader, decollate=False)
        self.network = network
        # The last step of an epoch comes before validation and checkpointing, whose handlers are attached after it.
        self.add_event_handler(Events.EPOCH_COMPLETED, lambda: self.network.head.end_epoch())
        self._register_handlers(train_handlers or ())

    @torch.no_grad()
    def _iteration(self, engine: HeadTrainer, batchdata: Mapping[str, Tensor]) -> list[dict[str, float]]:
        embeddings, cls, mask = unpack(batchdata, engine.state.device)
        report = self.network.head.fit_batch(self.network.prepare(embeddings), cls, mask)
        return [{CommonKeys.LOSS: -report.get("log_likelihood", 0.0), **report}]
