"""The last act of a fit: calibrate on normal validation images and write ``model.pt``."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from dino_uad import parallel
from dino_uad.detector import FALSE_POSITIVE_RATES, AnomalyDetector, fingerprint
from dino_uad.engines import unpack
from dino_uad.exact import without_autocast
from dino_uad.files import save_torch
from dino_uad.handlers.scan_tally import ScanTally
from dino_uad.metrics import ThresholdAtFPR

logger = logging.getLogger(__name__)


@torch.inference_mode()
def calibrate(network: AnomalyDetector, loader: Iterable[dict[str, Tensor]], device: torch.device | str) -> None:
    """Learn the operating points from normal validation images, in two streaming passes.

    The first lets the head collect what its own calibration needs (:meth:`Head.calibrate_batch`). The second takes the
    threshold of each false positive rate in :data:`FALSE_POSITIVE_RATES` over all pixels, the mean and standard
    deviation of the image scores, and the decisions on whole images and scans
    (:class:`~dino_uad.detector.normal_scans.NormalScans`). The results are buffers of the network: ``thresholds`` in
    the order of the rates, ``image_score_range`` ``[2]``, and ``normal_scans``. No anomalous image takes part.
    """
    network.eval()
    for batch in loader:
        network.head.calibrate_batch(*unpack(batch, device))
    network.head.end_calibration()
    thresholds = ThresholdAtFPR(fprs=FALSE_POSITIVE_RATES, device=device)
    tally = ScanTally(loader, device)
    for batch in loader:
        embeddings, cls, _ = unpack(batch, device)
        patch_scores = network.score(embeddings, cls)  # without mask, as AnomalyDetector.predict scores
        if not len(patch_scores):
            continue
        maps = network.upsample(patch_scores)
        thresholds.update(maps)
        tally.add(batch, network.head.image_score(patch_scores), maps, network.grid_size)
    scores, groups, maps = tally.gathered(network.grid_size)
    network.thresholds.copy_(thresholds.compute().to(network.thresholds))
    network.image_score_range.copy_(torch.stack([scores.mean(), scores.std(correction=0)]))
    network.normal_scans.fit(scores, groups, maps)


class FinishFit:
    """Calibrates the fitted network when the trainer completes, and writes it to ``path`` atomically.

    Attach it after :class:`~dino_uad.handlers.fit_checkpoint.FitCheckpoint`, which restores the best epoch.

    Args:
        network: the detector.
        loader: embeddings of normal validation images.
        path: the model file.
        checkpoint: the fit's checkpoint, removed when the model is safely written.
    """

    def __init__(self, network: AnomalyDetector, loader: Iterable, path: str, checkpoint: str | None = None) -> None:
        self.network = network
        self.loader = loader
        self.path = Path(path)
        self.checkpoint = Path(checkpoint) if checkpoint else None

    def attach(self, engine: Engine) -> None:
        """Register on the trainer's ``COMPLETED``."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        with without_autocast(torch.device(engine.state.device)):
            calibrate(self.network, self.loader, engine.state.device)
        # A fit that went on from an older model (MONAI Label) has loaded that one's.
        self.network.fingerprint.copy_(fingerprint.encode(self.network.facts))
        rates = ", ".join(
            f"{100 * rate:g} %: {threshold:.4g}"
            for rate, threshold in zip(FALSE_POSITIVE_RATES, self.network.thresholds.tolist(), strict=True)
        )
        logger.info(f"thresholds at the false positive rates of normal validation pixels: {rates}")
        if parallel.rank() == 0:
            save_torch({key: value.cpu() for key, value in self.network.state_dict().items()}, self.path)
            logger.info(f"wrote {self.path.parent.name}/{self.path.name} ({self.path.stat().st_size / 1e6:.2f} MB)")
            if self.checkpoint:
                self.checkpoint.unlink(missing_ok=True)
