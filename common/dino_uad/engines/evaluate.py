"""Evaluation engines: log-likelihood of cached embeddings, and anomaly maps with image scores of images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from monai.engines import SupervisedEvaluator
from monai.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor

from dino_uad.engines.batch import unpack


class EmbeddingEvaluator(SupervisedEvaluator):
    """Validates on cached embeddings: ``engine.state.output = {"log_likelihood": [B]}``, mean per patch of each image.

    Takes the arguments of MONAI's ``SupervisedEvaluator``; ``val_data_loader`` is an
    :class:`~dino_uad.data.loader.EmbeddingLoader` and ``network`` the detector.
    """

    def _iteration(self, engine: EmbeddingEvaluator, batchdata: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with engine.mode(engine.network):
            likelihood = engine.network.head.log_likelihood(*unpack(batchdata, engine.state.device))
        engine.state.output = {"log_likelihood": likelihood}
        return engine.state.output


class DetectorEvaluator(SupervisedEvaluator):
    """Runs the whole detector on images: adds ``image_score`` and ``patch_scores`` to the output.

    Takes the arguments of MONAI's ``SupervisedEvaluator``. A batch may hold the slices of a volume, more than fit on
    the device at once, so the network sees at most ``max_batch`` images a call.

    Args:
        max_batch: images per network call.
    """

    def __init__(self, *args, max_batch: int = 16, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.max_batch = max_batch

    def _iteration(self, engine: DetectorEvaluator, batchdata: Mapping[str, Tensor]) -> dict[str, Tensor]:
        images = batchdata[CommonKeys.IMAGE]
        with engine.mode(engine.network), torch.autocast(engine.state.device.type, enabled=engine.amp):
            parts = [
                engine.network.predict(chunk.to(engine.state.device, torch.float32))
                for chunk in images.split(self.max_batch)
            ]
        output = {key: torch.cat([part[key] for part in parts]).float() for key in parts[0]}
        engine.state.output = {
            CommonKeys.IMAGE: images,
            CommonKeys.LABEL: batchdata.get(CommonKeys.LABEL),
            **output,
        }
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output


