"""Evaluation engines: log-likelihood of cached embeddings, and anomaly maps with image scores of images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from torch import Tensor

from dino_uad import parallel
from dino_uad.data import collate_slices
from dino_uad.detector import AnomalyDetector
from dino_uad.engines.batch import unpack
from dino_uad.exact import without_autocast
from dino_uad.measure import synchronize
from dino_uad.transfer import packed_on
from dino_uad.unequal_work import unequal_work


class EmbeddingEvaluator(SupervisedEvaluator):
    """Validates on cached embeddings: ``engine.state.output = {"log_likelihood": [n]}``, mean per patch of each image.

    Images without any foreground have no patch to be likely, and are left out, whatever the head says of them.

    Takes the arguments of MONAI's ``SupervisedEvaluator``; ``val_data_loader`` is an
    :class:`~dino_uad.embeddings.loader.EmbeddingLoader` and ``network`` the detector.
    """

    def _iteration(self, engine: EmbeddingEvaluator, batchdata: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with engine.mode(engine.network):
            embeddings, cls, mask = unpack(batchdata, engine.state.device)
            with without_autocast(embeddings.device):
                likelihood = engine.network.head.log_likelihood(engine.network.prepare(embeddings), cls, mask)
        if mask is not None:
            likelihood = likelihood[mask.flatten(1).any(dim=1)]
        engine.state.output = {"log_likelihood": likelihood}
        return engine.state.output


class DetectorEvaluator(SupervisedEvaluator):
    """Runs the whole detector on the batches of :func:`~dino_uad.data.collate.collate_slices`.

    ``engine.state.output`` is a list with one dictionary per image: what the batch says of it (``image``, ``label``,
    ``has_mask``, ``group``, ``name``, ``scan``, ``slice_index``, ``spacing``) and, on the device, where metrics are
    taken: the ``mask`` bool ``[1,h,w]`` (of ``label``), ``pred`` ``[1,h,w]`` (the map that inference writes, at the
    label's size), the detector's ``patch_scores``, ``raw_scores``, ``foreground`` ``[1,gh,gw]`` and ``image_score``;
    and ``seconds`` (of the network, divided by the batch). What goes to the device goes there once a batch. The slices
    of a volume, which a batch holds all of, share the threshold of their foreground.

    Takes the arguments of MONAI's ``SupervisedEvaluator``. A batch may hold all slices of a volume, more than fit on
    the device at once, so the network sees at most ``max_batch`` images a call. A batch and its output are forgotten
    before the next one is loaded. A process of several that has no image takes its part in the sums over all; who is
    done waits there for the others, whose volumes may have more slices, as long as they live.

    Args:
        max_batch: images per network call.
    """

    def __init__(self, *args, max_batch: int = 16, **kwargs) -> None:
        loader = kwargs.get("val_data_loader")
        if parallel.is_distributed() and loader is not None and not len(loader):
            kwargs["val_data_loader"] = [NO_IMAGES]
        super().__init__(*args, decollate=False, **kwargs)
        self.max_batch = max_batch
        self.add_event_handler(Events.GET_BATCH_STARTED, self._forget)
        self.add_event_handler(Events.ITERATION_COMPLETED, self._meet)  # behind what metrics do with the output

    def run(self, *args, **kwargs) -> Any:
        """Run over the images of this process; metrics are taken of those of all."""
        with unequal_work() as self._meeting:
            return super().run(*args, **kwargs)

    def _iteration(self, engine: DetectorEvaluator, batchdata: Mapping[str, Any]) -> list[dict[str, Any]]:
        count = len(batchdata["image"])
        items = [{key: values[i] for key, values in batchdata.items()} for i in range(count)]
        thresholds = _foreground_thresholds(engine.network, items)
        # On any device they lie one behind the other, as the maps of a volume do: its metrics need no copy.
        masks = packed_on([item["label"] > 0 for item in items], engine.state.device)
        for item, mask in zip(items, masks, strict=True):
            item["mask"] = mask
        maps = self._block(items)
        with engine.mode(engine.network):
            chunks = [
                self._predict(
                    items[i : i + self.max_batch],
                    None if maps is None else maps[i : i + self.max_batch],
                    *(part[i : i + self.max_batch] for part in thresholds),
                )
                for i in range(0, count, self.max_batch)
            ]
            if _is_last(engine) and isinstance(engine.network, AnomalyDetector):
                engine.network.head.end_scoring()
        engine.state.output = [item for chunk in chunks for item in chunk]
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _block(self, items: Sequence[Mapping[str, Any]]) -> Tensor | None:
        """Memory ``[B,1,h,w]`` for the maps of labels of one size: of a volume, whose metrics then need no copy."""
        shapes = {item["label"].shape for item in items}
        if len(shapes) != 1:
            return None
        return torch.empty((len(items), *shapes.pop()), dtype=torch.float32, device=self.state.device)

    def _predict(self, items: list[dict[str, Any]], maps: Tensor | None, *thresholds: Tensor) -> list[dict[str, Any]]:
        start = time.perf_counter()
        device = self.state.device
        images = torch.stack([item["image"] for item in items]).to(device, torch.float32)
        with torch.autocast(device.type, enabled=self.amp):
            predicted = self.network.predict(images, *(threshold.to(device) for threshold in thresholds))
        predicted = {key: value.float() for key, value in predicted.items()}
        synchronize(device)
        seconds = (time.perf_counter() - start) / len(items)
        output = []
        for i, item in enumerate(items):
            pred = resize_like(predicted["pred"][i], item["mask"])
            if maps is not None:
                pred = maps[i].copy_(pred)
            own = {key: values[i] for key, values in predicted.items()}
            output.append(item | own | {"pred": pred, "seconds": seconds})
        return output

    def _meet(self, engine: DetectorEvaluator) -> None:
        if _is_last(engine):
            self._meeting()

    def _forget(self, engine: DetectorEvaluator) -> None:
        engine.state.batch = engine.state.output = None


def _is_last(engine: DetectorEvaluator) -> bool:
    return engine.state.iteration % engine.state.epoch_length == 0


def _foreground_thresholds(network: Any, items: Sequence[Mapping[str, Any]]) -> tuple[Tensor, ...]:
    """The threshold ``[B]`` of each image's foreground, for a network that takes one; slices share their scan's."""
    if not isinstance(network, AnomalyDetector):
        return ()
    return (network.foreground.of_scans([item["image"] for item in items], [item["scan"] for item in items]),)


def resize_like(anomaly_map: Tensor, label: Tensor) -> Tensor:
    """Bring a map ``[1,H,W]`` to the size of its label ``[1,h,w]``, as ``Invertd`` does with the map that is saved."""
    if anomaly_map.shape == label.shape:
        return anomaly_map
    return F.interpolate(anomaly_map[None], tuple(label.shape[1:]), mode="bilinear")[0]


NO_IMAGES = collate_slices([])
