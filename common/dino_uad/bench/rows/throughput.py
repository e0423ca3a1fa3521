"""Images a second: the backbone in batches, each head after it, and what an epoch of a fit takes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.backbones import DinoBackbone
from dino_uad.bench.bundle_heads import METHODS, make_head
from dino_uad.bench.row import Row
from dino_uad.bench.settings import Settings
from dino_uad.bench.synthetic import patch_embeddings
from dino_uad.heads import Head
from dino_uad.heads.anomaly_dino import AnomalyDinoHead
from dino_uad.heads.spatial_ar import SpatialARHead
from dino_uad.measure import peak_extra_megabytes

ARCH = "dinov2_vits14"  # speed does not depend on the weights, so random ones do
DIM = 384
SLICES = 7500


def throughput(settings: Settings) -> Row:
    """Slices of 448 px in batches, at the aims for one H100; elsewhere figures without an aim."""
    side, batch, normal = settings.size((32, 64, 360), (4, 2, 36))
    size = {"image": f"{14 * side} px", "batch": batch, "normal images": normal, "slices of a fit": SLICES}
    row = Row("throughput", "Images a second", size, settings)
    gpu = settings.device.type == "cuda"
    with torch.no_grad():
        _embedding(row, side, batch, at_least=1500 if gpu else None)
        _scoring(row, side, batch, normal, at_most=5 if gpu else None)
    _fits(row, side, at_most=120 if gpu else None)
    if gpu and not settings.quick:
        _large_bank(row)
    return row


def _embedding(row: Row, side: int, batch: int, at_least: float | None) -> None:
    images = torch.rand(batch, 1, 14 * side, 14 * side, device=row.settings.device)
    variants: dict[str, Callable[[], object]] = {}
    ways = [("float32", False), ("bfloat16", False)]
    if row.settings.device.type == "cuda":
        ways.append(("bfloat16", True))
    for precision, compiled in ways:
        backbone = DinoBackbone(ARCH, weights="random", precision=precision, compiled=compiled).to(row.settings.device)
        name = f"embedding, {precision}{', compiled' if compiled else ''}"
        variants[name] = lambda backbone=backbone: backbone(images)
    row.time(variants)
    fastest = max(batch / row.timings[name].wall_median for name in variants if "bfloat16" in name)
    row.figure("embedding, float32", batch / row.timings["embedding, float32"].wall_median, "/s")
    row.figure("embedding, bfloat16, the faster way", fastest, "/s", at_least=at_least)


def _scoring(row: Row, side: int, batch: int, normal: int, at_most: float | None) -> None:
    device = row.settings.device
    embeddings = patch_embeddings(batch, side, DIM).to(device)
    cls = functional.normalize(embeddings.float().mean(dim=(2, 3)), dim=1)
    heads = _fitted(patch_embeddings(normal, side, DIM, seed=1).to(device), row.settings)
    row.time({name: lambda head=head: head.score(embeddings, cls) for name, head in heads.items()})
    for name in heads:
        row.figure(f"{name}, an image in a batch", 1000 * row.timings[name].wall_median / batch, "ms", at_most=at_most)
        row.check(f"{name}, one image alone, relative", _alone(heads[name], embeddings, cls), 1e-3)


def _fitted(normal: Tensor, settings: Settings) -> dict[str, Head]:
    """Heads as in the bundles, after one batch of normal images."""
    torch.manual_seed(0)
    heads = {name: make_head(method, DIM, settings) for method, name in METHODS.items()}
    cls = functional.normalize(normal.float().mean(dim=(2, 3)), dim=1)
    for head in heads.values():
        head.to(normal.device).eval()
        if isinstance(head, SpatialARHead):
            head.batches_seen += 1
            for part in normal.split(12):
                head.measure_residuals(part.float())
            head.end_measuring()
            continue
        for part, token in zip(normal.split(12), cls.split(12), strict=True):
            head.fit_batch(part, token)
        head.end_epoch()
    return heads


def _alone(head: Head, embeddings: Tensor, cls: Tensor) -> float:
    """Largest relative difference between the score of one image in a batch and by itself."""
    together, alone = head.score(embeddings, cls)[:1], head.score(embeddings[:1], cls[:1])
    return float((together - alone).abs().max() / together.abs().max())


def _fits(row: Row, side: int, at_most: float | None) -> None:
    """A whole fit as in the bundle from the pace of one step, embeddings on the device."""
    device = row.settings.device
    embeddings = patch_embeddings(12, side, DIM).to(device)
    mixture, network = (make_head(one, DIM, row.settings).to(device) for one in ("dpmm", "spatial_ar"))
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)

    def em_step() -> None:
        with torch.no_grad():
            mixture.fit_batch(embeddings)

    def ar_step(half: bool) -> None:
        optimizer.zero_grad(set_to_none=True)
        batch = embeddings[:8].float()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = sum(functional.mse_loss(one.float(), batch) for one in network(batch))
        loss.backward()
        optimizer.step()

    row.time(
        {
            "DPMM, a step of 12 images": em_step,
            "Spatial AR, a step of 8 images": lambda: ar_step(half=False),
            "Spatial AR, the same in bfloat16": lambda: ar_step(half=True),
        }
    )
    # Of Spatial AR's 600 steps the pass that they end in is made to its end.
    fits = {"DPMM, a step of 12 images": (12, 40), "Spatial AR, a step of 8 images": (8, 1)}
    for name, (images, epochs) in fits.items():
        steps = -(-SLICES // images) * epochs
        seconds = row.timings[name].wall_median * steps
        method = name.split(",")[0]
        row.figure(f"{method}, a fit to {SLICES} slices: {steps} steps at this pace", seconds, "s", at_most=at_most)


def _large_bank(row: Row) -> None:
    """A bank of 7.7 million rows on the device, and one image searched in it."""
    rows = 7_700_000
    bank = torch.randint(-32767, 32767, (rows, DIM), dtype=torch.int16, device=row.settings.device)
    head = AnomalyDinoHead(DIM).to(row.settings.device)
    head.bank = bank
    image = patch_embeddings(1, 32, DIM).to(row.settings.device)
    extra = peak_extra_megabytes(lambda: head.score(image), row.settings.device)
    row.figure(f"bank of {rows} rows and a search in it", bank.nbytes / 1e9 + extra / 1e3, "GB", at_most=6)
