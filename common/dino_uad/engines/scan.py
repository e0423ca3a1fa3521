"""Inference that goes on after a scan that cannot be read, and ends well where there is nothing to do."""

from __future__ import annotations

from typing import Any

from ignite.engine import Events
from monai.engines import SupervisedEvaluator

from dino_uad.data import FAILED
from dino_uad.heap import return_free_memory


class ScanEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` on the batches of :func:`~dino_uad.data.scan_dataset.collate_scans`.

    ``engine.state.failed`` lists what could not be read of a batch, each with ``image`` (path) and ``failed`` (reason).
    """

    def _iteration(self, engine: ScanEvaluator, batchdata: dict[str, Any]) -> Any:
        engine.state.failed = batchdata.pop(FAILED, [])
        if "image" not in batchdata:
            engine.state.output = []
            return engine.state.output
        if batchdata["image"].ndim < 5:
            return super()._iteration(engine, batchdata)
        return_free_memory()  # of reading and resizing a volume, before the network and the map take theirs
        output = super()._iteration(engine, batchdata)
        return_free_memory()
        return output

    def run(self, global_epoch: int = 1) -> None:
        """Run over all scans; with none, handlers that act at the start and the end still do."""
        if self.state.epoch_length:
            super().run(global_epoch)
            return
        self.fire_event(Events.STARTED)
        self.fire_event(Events.COMPLETED)
