"""Gradient training on cached embeddings, with the same result on one process and on several."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Protocol

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents, SupervisedTrainer
from monai.utils import CommonKeys
from torch import Tensor, nn

from dino_uad import parallel
from dino_uad.engines.batch import unpack
from dino_uad.engines.prepare_embedding import PrepareEmbedding
from dino_uad.heads import GradientHead
from dino_uad.processor import half_precision_pays
from dino_uad.settings import require_count

logger = logging.getLogger(__name__)


class PredictionLoss(nn.Module):
    """Mean squared error over the valid patches and channels of the global batch, averaged over the predictions.

    A rank's gradient is that of its own squared errors over the *global* number of patches, so that the sum of the
    ranks' gradients, not their mean, is the gradient of one process; a rank without images adds zeros. The value is the
    global loss on every rank.
    """

    def forward(self, predictions: Tensor | tuple[Tensor, ...], target: tuple[Tensor, Tensor]) -> Tensor:
        """``[B,C,h,w]`` predictions (one or several) against ``(clean [B,C,h,w], mask [B,1,h,w] bool)``: a scalar."""
        clean, mask = target
        predictions = predictions if isinstance(predictions, (tuple, list)) else (predictions,)
        (count,) = parallel.all_reduce_sum(mask.sum())
        error = sum(((p.float() - clean).square() * mask).sum() for p in predictions)
        local = error / (count.clamp_min(1) * clean.shape[1] * len(predictions))
        (total,) = parallel.all_reduce_sum(local.detach().clone())
        return local + (total - local.detach())


class Schedule(Protocol):
    """What sets the learning rate of a trainer's steps."""

    def attach(self, engine: Engine) -> None: ...


class EmbeddingTrainer(SupervisedTrainer):
    """MONAI's ``SupervisedTrainer`` for a head on batches of :class:`~dino_uad.embeddings.loader.EmbeddingLoader`.

    Adds what DistributedDataParallel cannot give: ranks with fewer images, or none, weigh by their patches. Parameters
    start equal (rank 0's) and gradients are summed between backward and the optimizer's step; with AMP they carry the
    same loss scale on all ranks, so that all skip the same steps. Use no DDP around the network, and
    :class:`PredictionLoss`, which divides by the global count.

    Args:
        prepare_batch: makes inputs and targets, and is told the iteration.
        schedule: of the learning rate; it is attached to this trainer.
        amp: mixed precision, in bfloat16; in float16 with a loss scale on GPUs without it (before Ampere). Processors
            without bfloat16 products train in float32, as without ``amp``, and the log says so.
        max_epochs: passes over the training images at most.
        max_steps: optimizer steps after which the fit ends with the pass that it is in; no such end when None. How
            much a network learns depends on its steps, so few images want more passes.
        args, kwargs: of ``SupervisedTrainer``; ``network`` is the head, a :class:`~dino_uad.heads.GradientHead`.

    Raises:
        ValueError: the network is no such head, or one in DistributedDataParallel.
    """

    def __init__(
        self,
        *args,
        prepare_batch: PrepareEmbedding,
        max_epochs: int,
        max_steps: int | None = None,
        schedule: Schedule | None = None,
        amp: bool = False,
        **kwargs,
    ) -> None:
        if max_steps is not None:
            require_count("max_steps", max_steps)
            max_epochs = min(max_epochs, math.ceil(max_steps / max(1, len(kwargs["train_data_loader"]))))
        kwargs = {"decollate": False, **kwargs}
        device = torch.device(kwargs["device"])
        if amp and not half_precision_pays(device, torch.bfloat16):
            logger.warning("amp: this processor would only emulate bfloat16, at many times the time: float32 instead")
            amp = False
        # In bfloat16 by a context of our own: it needs no loss scale, and MONAI's amp knows CUDA alone.
        bfloat16 = amp and _has_bfloat16(device)
        super().__init__(*args, prepare_batch=prepare_batch, max_epochs=max_epochs, amp=amp and not bfloat16, **kwargs)
        self.bfloat16 = bfloat16
        if isinstance(self.network, nn.parallel.DistributedDataParallel):
            raise ValueError("EmbeddingTrainer sums gradients itself: give it the head without DistributedDataParallel")
        if not isinstance(self.network, GradientHead):
            raise ValueError(
                f"network is a {type(self.network).__name__}; expected a GradientHead (network.head of the config). "
                "Heads without gradients are fitted by HeadTrainer"
            )
        prepare_batch.attach(self)
        self.add_event_handler(Events.STARTED, self._measure_channels)
        self.add_event_handler(Events.STARTED, self._share_parameters)
        self.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._sum_gradients)
        if schedule is not None:
            schedule.attach(self)

    def _iteration(self, engine: EmbeddingTrainer, batchdata: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        # MONAI's logging and tracking handlers read the loss from a list; embeddings and predictions are not kept.
        with torch.autocast(engine.state.device.type, torch.bfloat16, enabled=self.bfloat16):
            return [{CommonKeys.LOSS: super()._iteration(engine, batchdata)[CommonKeys.LOSS].detach()}]

    def _measure_channels(self) -> None:
        """One pass before the first step; a head that was trained before, or is resumed, keeps what it measured."""
        head = self.network
        if head.scale is None or head.fitted:
            return
        for batch in self.data_loader:
            embeddings, _, mask = unpack(batch, self.state.device)
            head.scale.measure(head.prepare(embeddings), mask)
        head.scale.finish()

    @torch.no_grad()
    def _share_parameters(self) -> None:
        for parameter in self.network.parameters():
            parallel.broadcast(parameter)

    @torch.no_grad()
    def _sum_gradients(self) -> None:
        parallel.sum_gradients(self.network.parameters())


def _has_bfloat16(device: torch.device) -> bool:
    return device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
