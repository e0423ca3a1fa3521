"""Scoring one image with each head, and what surrounds it, as a share of the backbone's forward pass."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.backbones import DinoBackbone
from dino_uad.bench.row import Row
from dino_uad.bench.settings import Settings
from dino_uad.bench.synthetic import head_slices, patch_embeddings
from dino_uad.detector import AnomalyDetector
from dino_uad.heads.dino_ad import DinoADHead
from dino_uad.heads.dpmm import DPMMHead
from dino_uad.heads.spatial_ar import SpatialARHead

ARCH = "dinov2_vits14"  # speed does not depend on the weights, so random ones do
DIM = 384


@torch.inference_mode()
def cosine_heads(settings: Settings) -> Row:
    """DPMM and DINO-AD on the 1024 patches of a 448 px image."""
    side, n_means, n_normal = settings.size((32, 150, 360), (4, 10, 6))
    size = {"patches": side**2, "means": n_means, "normal images": n_normal, "forward": f"ViT-S/14, {14 * side} px"}
    row = Row("score", "DPMM and DINO-AD scoring of one image", size, settings)
    embeddings, backbone, image = _inputs(side, settings)
    mixture, clusters = _fitted_mixture(n_means, settings.device), _fitted_dino_ad(n_normal, settings.device)
    cls = embeddings.mean(dim=(2, 3)).float()
    row.time(
        {
            "forward": lambda: backbone(image),
            "DPMM": lambda: mixture.score(embeddings),
            "DINO-AD": lambda: clusters.score(embeddings, cls),
        }
    )
    for name in ("DPMM", "DINO-AD"):
        row.ratio(f"{name} scoring / forward", name, "forward", scale=100, at_most=settings.on_processor(1))
    rows = functional.normalize(embeddings.double().flatten(2)[0].T, dim=1)
    means = functional.normalize(mixture.running_means[:n_means].double(), dim=1)
    row.check("DPMM, cosine distance", _error(mixture.score(embeddings), 1 - (rows @ means.T).amax(1)), 1e-5)
    support = int((functional.normalize(cls, dim=1) @ clusters.class_tokens.T).argmax())
    distance = 1 - (rows @ clusters.centroids[support].double().T).mean(1)
    distance = (distance - distance.min()) / (distance.max() - distance.min())
    row.check("DINO-AD, score in [0, 1]", _error(clusters.score(embeddings, cls), distance), 1e-3)
    return row


@torch.inference_mode()
def stage(settings: Settings) -> Row:
    """What all methods share around their heads: foreground, neighbourhood, image baseline, and the map in pixels."""
    side = settings.size(32, 4)
    row = Row("stage", "From embeddings and scores to a map", {"pixels": 14 * side, "C": DIM}, settings)
    embeddings, backbone, _ = _inputs(side, settings)
    image = head_slices(3, 14 * side)[1:2].to(settings.device)
    options = {"foreground": "auto", "neighbourhood": 3, "baseline": 0.5}
    detector = AnomalyDetector(backbone, DPMMHead(DIM, 4), image.shape[2:], **options)
    scores = embeddings[:, :1].float().abs()

    def shared() -> None:
        detector.prepare(embeddings)
        detector.assess(scores, detector.find_foreground(image))

    row.time({"forward": lambda: backbone(image), "shared": shared})
    row.ratio("all but backbone and head / forward", "shared", "forward", scale=100, at_most=settings.on_processor(5))
    unit = functional.normalize(embeddings.double(), dim=1)
    pooled = functional.avg_pool2d(unit, 3, stride=1, padding=1, count_include_pad=False)
    row.check("neighbourhood mean against pooling", (detector.prepare(embeddings) - pooled).abs().max(), 1e-6)
    return row


@torch.inference_mode()
def autoregressive(settings: Settings) -> Row:
    """Spatial AR on a grid of 28 × 28 patches."""
    side, hidden = settings.size((28, 256), (4, 32))
    size = {"grid": f"{side}×{side}", "C": DIM, "hidden": hidden, "forward": f"ViT-S/14, {14 * side} px"}
    row = Row("ar", "Spatial AR scoring of one image", size, settings)
    embeddings, backbone, image = _inputs(side, settings)
    torch.manual_seed(0)
    heads = {direction: SpatialARHead(DIM, hidden, direction=direction) for direction in ("forward", "both")}
    for head in heads.values():
        head.batches_seen += 1
        head.to(settings.device).eval()
    row.time(
        {"forward": lambda: backbone(image)}
        | {f"AR {name}": lambda head=head: head.score(embeddings) for name, head in heads.items()}
    )
    aim = settings.on_processor(8)
    row.ratio("AR scoring, one direction / forward", "AR forward", "forward", scale=100, at_most=aim)
    row.ratio("AR scoring, both directions / forward", "AR both", "forward", scale=100)
    expected = _masked_convolutions(heads["forward"], embeddings.double())
    row.check("against masked convolutions, relative", _error(heads["forward"].score(embeddings), expected, True), 1e-4)
    return row


def _inputs(side: int, settings: Settings) -> tuple[Tensor, DinoBackbone, Tensor]:
    """Embeddings ``[1,C,side,side]``, and the backbone with an image of as many patches."""
    image = torch.rand(1, 1, 14 * side, 14 * side, generator=torch.Generator().manual_seed(0))
    backbone = DinoBackbone(ARCH, weights="random").to(settings.device)
    return patch_embeddings(1, side, DIM).to(settings.device), backbone, image.to(settings.device)


def _fitted_mixture(n_means: int, device: torch.device) -> DPMMHead:
    head = DPMMHead(DIM, n_components=n_means)
    state = head.state_dict()
    state["running_means"] = torch.randn(n_means, DIM, generator=torch.Generator().manual_seed(0))
    state["running_covariances"] = torch.ones(n_means, DIM)
    state["step"] = torch.tensor(1)
    head.load_state_dict(state)
    return head.to(device)


def _fitted_dino_ad(n_normal: int, device: torch.device) -> DinoADHead:
    head = DinoADHead(DIM)
    generator = torch.Generator().manual_seed(0)
    unit = [functional.normalize(torch.randn(n_normal, n, DIM, generator=generator), dim=-1) for n in (1, 2)]
    state = head.state_dict()
    state["class_tokens"], state["centroids"] = unit[0][:, 0], unit[1].half()
    head.load_state_dict(state)
    return head.to(device)


def _masked_convolutions(head: SpatialARHead, embeddings: Tensor) -> Tensor:
    """Mean squared error of ``[B,C,h,w]`` by full kernels with zeros where the mask is, as published: ``[B*h*w]``."""
    hidden = embeddings
    for index, layer in enumerate(head.passes[0]):
        hidden = hidden.relu() if index else hidden
        kernel = hidden.new_zeros(layer.out_features, hidden.shape[1], 3, 3)
        for (row, column), weight in zip(layer.taps, layer.weight.double().split(hidden.shape[1], 1), strict=True):
            kernel[:, :, 1 + row, 1 + column] = weight
        step = abs(layer.step)
        hidden = functional.conv2d(hidden, kernel, layer.bias.double(), padding=step, dilation=step)
    return (hidden - embeddings).square().mean(1).flatten()


def _error(scores: Tensor, expected: Tensor, relative: bool = False) -> Tensor:
    error = (scores.flatten() - expected).abs().max()
    return error / expected.abs().max() if relative else error
