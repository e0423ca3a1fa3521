"""The last act of a fit: calibrate on normal validation images and write ``model.pt``."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile, is_zipfile

from ignite.engine import Engine, Events
from monai.handlers import ValidationHandler

from dino_uad import parallel
from dino_uad.detector import AnomalyDetector, fingerprint
from dino_uad.embeddings import EmbeddingDataset
from dino_uad.files import save_torch
from dino_uad.handlers.calibration import calibrate
from dino_uad.handlers.epoch_seed import EpochSeed
from dino_uad.handlers.fit_checkpoint import FitCheckpoint
from dino_uad.handlers.measure_residuals import MeasureResiduals
from dino_uad.handlers.order import names, registered, require_order

logger = logging.getLogger(__name__)


class FinishFit:
    """Calibrates the fitted network when the trainer completes, and writes it to ``path`` atomically.

    Attach it last: after :class:`~dino_uad.handlers.fit_checkpoint.FitCheckpoint`, which restores the best epoch, and
    :class:`~dino_uad.handlers.measure_residuals.MeasureResiduals`, without which some heads have no scores.

    Args:
        network: the detector.
        loader: embeddings of normal validation images.
        path: the model file.
        checkpoint: the file of ``FitCheckpoint``, removed when the model is safely written; None where there is none.

    Raises:
        ValueError: ``path`` is a file of another kind, which the model would replace.
    """

    def __init__(self, network: AnomalyDetector, loader: Iterable, path: str, checkpoint: str | None = None) -> None:
        self.network = network
        self.loader = loader
        self.path = _for_a_model(Path(path))
        self.checkpoint = Path(checkpoint) if checkpoint else None

    def attach(self, engine: Engine) -> None:
        """Register on the trainer's ``COMPLETED``.

        Raises:
            ValueError: what it needs is not registered yet, or handlers before it stand in an order in which the model
                would be another one without a word.
        """
        needed = [FitCheckpoint] if self.checkpoint else []
        if self.network.head.measures_residuals:
            needed.append(MeasureResiduals)
        missing = [kind for kind in needed if kind not in registered(engine, Events.COMPLETED)]
        if missing:
            raise ValueError(
                f"train#handlers has no {names(missing)} before FinishFit; expected {names(needed)} there, as in "
                "train.json"
            )
        require_order(engine, Events.COMPLETED, (EpochSeed, FitCheckpoint, MeasureResiduals))
        require_order(engine, Events.EPOCH_COMPLETED, (ValidationHandler, FitCheckpoint))
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        calibrate(self.network, self.loader, engine.state.device)
        # A fit that went on from an older model (MONAI Label) has loaded that one's.
        self.network.fingerprint.copy_(fingerprint.encode(self.network.facts))
        fitted = getattr(engine.state.dataloader, "dataset", None)
        if isinstance(fitted, EmbeddingDataset):
            self.network.fitted_images.add(fitted.images)
        state = self.network.state_dict()  # on every rank: a bank that is divided over them is joined on the first
        if parallel.rank() == 0:
            save_torch({key: value.cpu() for key, value in state.items()}, self.path)
            logger.info(f"wrote {self.path.parent.name}/{self.path.name} ({self.path.stat().st_size / 1e6:.2f} MB)")
            if self.checkpoint:
                self.checkpoint.unlink(missing_ok=True)


def _for_a_model(path: Path) -> Path:
    """A path where a model may be written: nothing is there, or an older one, whole or not."""
    other = path.is_file() and path.suffix != ".pt" and path.stat().st_size > 0 and not _is_of_torch(path)
    if other or path.is_dir():
        kind = "a file that is no model" if other else "a folder"
        raise ValueError(f"--model_file: found {path}, {kind}; expected a new name, or that of a model to replace")
    return path


def _is_of_torch(path: Path) -> bool:
    if not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return any(name.endswith("/data.pkl") for name in archive.namelist())
