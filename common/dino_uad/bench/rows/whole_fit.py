"""A whole fit of the DPMM: what the backbone takes, once per image, and what everything else takes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from ignite.engine import Events
from torch import Tensor

from dino_uad.bench.row import Row
from dino_uad.bench.settings import Settings
from dino_uad.bench.synthetic import head_slices, patch_embeddings
from dino_uad.bench.timing import Timing
from dino_uad.data.loader import EmbeddingLoader
from dino_uad.engines.fit import HeadTrainer
from dino_uad.networks.backbone import DinoBackbone
from dino_uad.networks.detector import AnomalyDetector
from dino_uad.networks.dpmm import DPMMHead

ARCH = "dinov2_vits14"
BATCH = 8  # images per backbone call, as EmbeddingDataset has it


def whole_fit(settings: Settings) -> Row:
    """360 images of 448 px, 40 epochs of the training engine in batches of 12, log-likelihood of 40 images each."""
    n_images, n_valid, epochs, side = settings.size((360, 40, 40, 32), (12, 2, 2, 4))
    size = {"images": n_images, "epochs": epochs, "components": 500, "validation images": n_valid}
    row = Row("fit", "Whole fit of the DPMM", size, settings)
    backbone = DinoBackbone(ARCH, weights="random").to(settings.device)
    images = head_slices(BATCH, 14 * side).to(settings.device)
    with torch.inference_mode():
        row.time({"backbone, 8 images": lambda: backbone(images)})
    embeddings = patch_embeddings(n_images + n_valid, side)
    detector = AnomalyDetector(backbone, DPMMHead(384), (14 * side, 14 * side)).to(settings.device)
    row.timings["epochs"], left = _train(detector, embeddings, n_images, epochs, settings)
    seconds = row.timings["backbone, 8 images"].wall_median * (n_images + n_valid) / BATCH
    rest = row.timings["epochs"].wall_median
    row.figure("everything else / backbone", rest / seconds, "×", at_most=1)
    row.figure("backbone, all images once", seconds, "s")
    row.figure("everything else", rest, "s")
    row.notes.append(
        f"The backbone's time is that of a batch times {(n_images + n_valid) / BATCH:g} batches; the {epochs} epochs "
        f"were run, once; {left} of 500 components were left."
    )
    finite = all(
        bool(buffer.isfinite().all()) for name, buffer in detector.head.named_buffers() if name != "log_weights"
    )
    row.check("fitted state not finite", not finite, 0)
    return row


def _train(
    detector: AnomalyDetector, embeddings: Tensor, n_images: int, epochs: int, settings: Settings
) -> tuple[Timing, int]:
    loader = EmbeddingLoader(_Cached(embeddings[:n_images]), batch_size=12, shuffle=True, drop_last=True)
    validation = EmbeddingLoader(_Cached(embeddings[n_images:]), batch_size=12)
    trainer = HeadTrainer(settings.device, epochs, loader, detector)

    @torch.no_grad()
    def validate() -> None:
        for batch in validation:
            detector.head.log_likelihood(batch["embedding"].to(settings.device))

    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.run()
    return Timing([time.perf_counter() - wall], [time.process_time() - cpu]), detector.head.n_active


class _Cached:
    """Embeddings in memory, as :class:`~dino_uad.data.embeddings.EmbeddingDataset` holds them once it is built."""

    def __init__(self, embeddings: Tensor) -> None:
        self._embeddings = embeddings

    def __len__(self) -> int:
        return len(self._embeddings)

    def batch(self, items: Sequence[int]) -> dict[str, Tensor]:
        chosen = self._embeddings[list(items)]
        return {"embedding": chosen, "cls": chosen.float().mean(dim=(2, 3))}
