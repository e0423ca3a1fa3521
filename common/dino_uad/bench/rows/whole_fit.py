"""A whole fit of the DPMM: what the backbone takes, once per image, and what everything else takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

import torch
from ignite.engine import Events
from torch import Tensor

from dino_uad.backbones import DinoBackbone
from dino_uad.bench.row import Figure, Row
from dino_uad.bench.settings import Settings
from dino_uad.bench.synthetic import head_slices, patch_embeddings
from dino_uad.bench.timing import Timing
from dino_uad.detector import AnomalyDetector
from dino_uad.embeddings import EmbeddingLoader
from dino_uad.engines import HeadTrainer
from dino_uad.heads.dpmm import DPMMHead
from dino_uad.measure import synchronize

ARCH = "dinov2_vits14"
BATCH = 8  # images per backbone call, as EmbeddingDataset has it


def whole_fit(settings: Settings, measured: int = 4) -> Row:
    """360 images of 448 px, 40 epochs of the training engine in batches of 12, log-likelihood of 40 images each.

    Args:
        measured: epochs that are run. The others are counted with the last one's time, which bounds them: components
            only ever drop out.
    """
    n_images, n_valid, epochs, side = settings.size((360, 40, 40, 32), (12, 2, 4, 4))
    size = {"images": n_images, "epochs": epochs, "components": 500, "validation images": n_valid}
    row = Row("fit", "Whole fit of the DPMM", size, settings)
    backbone = DinoBackbone(ARCH, weights="random").to(settings.device)
    images = head_slices(BATCH, 14 * side).to(settings.device)
    with torch.inference_mode():
        row.time({"backbone, 8 images": lambda: backbone(images)})
    embeddings = patch_embeddings(n_images + n_valid, side)
    detector = AnomalyDetector(backbone, DPMMHead(384), (14 * side, 14 * side)).to(settings.device)
    row.timings["epoch"] = _train(detector, embeddings, n_images, measured, settings)
    batches = (n_images + n_valid) / BATCH
    wall, cpu = (_all_epochs(times, epochs) for times in (row.timings["epoch"].wall, row.timings["epoch"].cpu))
    backbone_wall = batches * row.timings["backbone, 8 images"].wall_median
    backbone_cpu = batches * row.timings["backbone, 8 images"].cpu_median
    row.figures.append(Figure("everything else / backbone", wall / backbone_wall, cpu=cpu / backbone_cpu, at_most=1))
    row.figure("backbone, all images once", backbone_wall, "s")
    row.figure("everything else", wall, "s")
    row.notes.append(
        f"The backbone's time is that of a batch times {batches:g}. {measured} of {epochs} epochs were run and the "
        f"others counted as long as the last; {detector.head.n_active} of 500 components were in use then."
    )
    finite = all(bool(value.isfinite().all()) for value in (detector.head.running_means, detector.head.resp_mean))
    row.check("fitted means not finite", not finite, 0)
    return row


def _all_epochs(seconds: Sequence[float], epochs: int) -> float:
    """Time of all epochs from that of the first ones."""
    return sum(seconds) + (epochs - len(seconds)) * seconds[-1]


def _train(detector: AnomalyDetector, embeddings: Tensor, n_images: int, epochs: int, settings: Settings) -> Timing:
    """Time of each epoch, with validation."""
    loader = EmbeddingLoader(_Cached(embeddings[:n_images]), batch_size=12, shuffle=True, drop_last=True)
    validation = EmbeddingLoader(_Cached(embeddings[n_images:]), batch_size=12)
    trainer = HeadTrainer(settings.device, epochs, loader, detector)
    clock: list[tuple[float, float]] = []

    @torch.no_grad()
    def validate() -> None:
        for batch in validation:
            detector.head.log_likelihood(batch["embedding"].to(settings.device))

    def look() -> None:
        synchronize(settings.device)
        clock.append((time.perf_counter(), time.process_time()))

    trainer.add_event_handler(Events.STARTED, look)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, look)
    trainer.run()
    wall, cpu = ([after - before for before, after in pairwise(times)] for times in zip(*clock, strict=True))
    return Timing(wall, cpu)


def whole_fit_unabridged(settings: Settings) -> Row:
    """The same with every epoch run."""
    row = whole_fit(settings, measured=settings.size(40, 4))
    row.name = "fit_all"
    return row


class _Cached:
    """Embeddings in memory, as :class:`~dino_uad.embeddings.dataset.EmbeddingDataset` holds them once it is built."""

    device = torch.device("cpu")  # nothing to read ahead

    def __init__(self, embeddings: Tensor) -> None:
        self._embeddings = embeddings

    def __len__(self) -> int:
        return len(self._embeddings)

    def batch(self, items: Sequence[int]) -> dict[str, Tensor]:
        chosen = self._embeddings[list(items)]
        return {"embedding": chosen, "cls": chosen.float().mean(dim=(2, 3))}
