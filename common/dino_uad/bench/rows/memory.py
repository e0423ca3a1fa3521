"""Memory of a fit by the number of its images: embeddings come from the store, a batch at a time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psutil
import torch
from ignite.engine import Events

from dino_uad.backbones import DinoBackbone
from dino_uad.bench.bundle_heads import METHODS, make_head
from dino_uad.bench.row import Row
from dino_uad.bench.settings import Settings
from dino_uad.bench.synthetic import patch_embeddings
from dino_uad.detector import AnomalyDetector
from dino_uad.embeddings import EmbeddingDataset, EmbeddingLoader, EmbeddingStore, entry_key, store_facts
from dino_uad.engines import EmbeddingTrainer, HeadTrainer, PredictionLoss, PrepareEmbedding
from dino_uad.handlers import FinishFit, MeasureResiduals
from dino_uad.heads.spatial_ar import SpatialARHead
from dino_uad.measure import MEGABYTE, peak_extra_megabytes

ARCH = "dino_uad_tiny14"
SIDE = 16  # patches along 224 px
BATCH = 12
LOOKS = 10  # of the memory during an epoch


def memory(settings: Settings) -> Row:
    """One epoch, calibration and model file of each method, on a twentieth of the images and on all of them."""
    many, valid = settings.size((20_000, 240), (60, 12))
    counts = (many // 20, many)
    size = {"images": many, "pixels": 14 * SIDE, "fewer images": counts[0], "validation images": valid}
    row = Row("memory", "Memory of a fit by the number of its images", size, settings)
    backbone = DinoBackbone(ARCH, weights="random")
    with tempfile.TemporaryDirectory() as folder:
        row.check("embeddings read, against those written", write_embeddings(folder, backbone, many), 0)
        row.figure("embeddings on disk", _bytes(folder) / MEGABYTE, "MB")
        for method in METHODS:
            made = make_head(method, backbone.embed_dim, settings)
            detector = AnomalyDetector(backbone, made, (14 * SIDE, 14 * SIDE)).to(settings.device)
            fits = [_Fit(detector, *(stored(folder, backbone, n) for n in (count, valid)), folder) for count in counts]
            for count, fit in zip(counts, fits, strict=True):
                peak = peak_extra_megabytes(fit.run, torch.device("cpu"), period=0.01)
                model = sum(value.nbytes for value in detector.head.state_dict().values()) / MEGABYTE
                name = f"peak extra memory beyond the model of {model:.0f} MB, {method}, {count} images"
                row.figure(name, max(0.0, peak - model), "MB", at_most=1000)
            row.notes.append(f"{method}, MB after each tenth of the {many} images: {fits[1].curve()}.")
    row.notes.append(
        "Growth of the resident memory beyond what was held before the fit and the model itself: batch and statistics. "
        "Settings are the bundles'. "
        "The system's page cache is no process's memory."
    )
    return row


def write_embeddings(folder: str, backbone: DinoBackbone, count: int) -> float:
    """Put made-up embeddings where :func:`stored` will find them; the largest difference of some read back."""
    drawn = patch_embeddings(100, SIDE, backbone.embed_dim)
    tokens = drawn.float().mean(dim=(2, 3))
    store = EmbeddingStore(folder, store_facts(dict, backbone))
    store.prepare()
    for i, entry in enumerate(_entries(count)):
        embedding = drawn[i % len(drawn)].roll(i // len(drawn), dims=-1)[None]
        store.append(entry_key(entry), {"embedding": embedding, "cls": tokens[i % len(drawn)][None]})
    store.flush()
    chosen = torch.randperm(count)[:100].tolist()
    read = stored(folder, backbone, count).batch(chosen)["embedding"]
    written = torch.stack([drawn[i % len(drawn)].roll(i // len(drawn), dims=-1) for i in chosen])
    return float((read - written).abs().max())


def stored(folder: str, backbone: DinoBackbone, count: int) -> EmbeddingDataset:
    """The first ``count`` of the slices that were written."""
    return EmbeddingDataset(_entries(count), dict, backbone, cache_dir=folder)


def _entries(count: int) -> list[dict[str, str]]:
    """A data list of images that exist in the store alone."""
    return [{"image": f"generated slice {i}"} for i in range(count)]


def _bytes(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors"))


class _Fit:
    """A fit that looks at the resident memory as it goes."""

    def __init__(
        self, detector: AnomalyDetector, train: EmbeddingDataset, valid: EmbeddingDataset, folder: str
    ) -> None:
        self.detector, self.train, self.valid = detector, train, valid
        self.path = f"{folder}/model.pt"
        self.seen: list[float] = []

    def run(self) -> None:
        """One epoch as the bundles do it."""
        loader, head = EmbeddingLoader(self.train, BATCH, shuffle=True), self.detector.head
        device = self.detector.fingerprint.device
        if isinstance(head, SpatialARHead):
            trainer = EmbeddingTrainer(
                device=device,
                max_epochs=1,
                train_data_loader=loader,
                network=head,
                optimizer=torch.optim.AdamW(head.parameters()),
                loss_function=PredictionLoss(),
                prepare_batch=PrepareEmbedding(),
            )
        else:
            trainer = HeadTrainer(device, 1, loader, self.detector)
        trainer.add_event_handler(Events.ITERATION_COMPLETED(every=max(1, len(loader) // LOOKS)), self._look)
        if isinstance(head, SpatialARHead):
            MeasureResiduals(self.detector, loader).attach(trainer)
        FinishFit(self.detector, EmbeddingLoader(self.valid, BATCH), self.path).attach(trainer)
        self._look()
        trainer.run()

    def _look(self) -> None:
        self.seen.append(psutil.Process().memory_info().rss / MEGABYTE)

    def curve(self) -> str:
        """Growth since the start, at each look."""
        return ", ".join(f"{seen - self.seen[0]:.0f}" for seen in self.seen[1:])
