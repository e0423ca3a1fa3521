"""The backbone's forward pass: against Hugging Face's model on the same weights, in bfloat16, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from dino_uad.backbones import DinoBackbone, to_huggingface
from dino_uad.backbones.weights import locate
from dino_uad.bench.row import Row
from dino_uad.bench.settings import Settings
from dino_uad.bench.synthetic import head_slices
from dino_uad.detector import upsample_scores
from dino_uad.heads.dpmm import DPMMHead
from dino_uad.processor import half_precision_pays

ARCH = "dinov2_vits14"


@torch.inference_mode()
def forward(settings: Settings) -> Row:
    """ViT-S/14 on a batch of 8 images of 448 px."""
    row, backbone, images = _start("forward", "ViT-S/14 forward pass", settings)
    half = _backbone("bfloat16").to(settings.device)
    variants: dict[str, Callable[[], object]] = {"float32": lambda: backbone(images), "bfloat16": lambda: half(images)}
    peer = _huggingface(backbone, images.shape[-1] // backbone.patch_size) if find_spec("transformers") else None
    if peer is None:
        row.notes.append("transformers is not installed (requirements-bench.txt): not compared with Hugging Face.")
    else:
        normalized = backbone.normalize(images)
        variants["Hugging Face"] = lambda: peer(normalized).last_hidden_state
    row.time(variants)
    if peer is not None:
        row.ratio("Hugging Face / ours, float32", "Hugging Face", "float32", at_least=1)
        tokens = backbone.tokens(images)
        error = (tokens - variants["Hugging Face"]()).abs().max() / tokens.abs().max()
        row.check("tokens against Hugging Face, relative", error, 1e-4)
    pays = half_precision_pays(torch.device(settings.device), torch.bfloat16)  # else it is float32 itself
    row.ratio("float32 / bfloat16", "float32", "bfloat16", at_least=1.5 if pays else None)
    row.memory("float32", variants["float32"])
    row.memory("bfloat16", variants["bfloat16"])
    correlation, bound = _map_correlation(backbone, half, images), settings.size(1e-3, 0.5)
    row.check("1 - correlation of bfloat16 and float32 anomaly maps", 1 - correlation, bound)
    return row


@torch.inference_mode()
def options(settings: Settings) -> Row:
    """What else is said to help: one image at a time or many, channels-last images, ``torch.compile``."""
    row, backbone, images = _start("options", "Options of the forward pass", settings)
    last = images.contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(backbone)
    row.time(
        {
            "batch": lambda: backbone(images),
            "one by one": lambda: [backbone(image) for image in images.split(1)],
            "channels last": lambda: backbone(last),
            "compiled": lambda: compiled(images),
        }
    )
    for name in ("one by one", "channels last", "compiled"):
        row.ratio(f"batch / {name}", "batch", name)
    exact = backbone(images)[0]
    for name, found in (("channels last", backbone(last)[0]), ("compiled", compiled(images)[0])):
        row.check(f"{name}, relative", (found - exact).abs().max() / exact.abs().max(), 1e-4)
    return row


def _start(name: str, title: str, settings: Settings) -> tuple[Row, DinoBackbone, Tensor]:
    count, side = settings.size((8, 448), (2, 56))
    row = Row(name, title, {"arch": ARCH, "batch": count, "image": f"{side} px"}, settings)
    if locate(ARCH) is None:
        row.notes.append(f"The weights of {ARCH} are not on this machine: random ones, so maps mean nothing.")
    return row, _backbone("float32").to(settings.device), head_slices(count, side).to(settings.device)


def _backbone(precision: str) -> DinoBackbone:
    return DinoBackbone(ARCH, weights=None if locate(ARCH) else "random", precision=precision)


def _huggingface(backbone: DinoBackbone, side: int) -> nn.Module:
    """``Dinov2Model`` on the same weights.

    It resamples the position embedding otherwise than the official code (by size, without the offset of 0.1), which
    would hide errors; it gets the one of ``side`` patches as official, and is spared the resampling.
    """
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=backbone.embed_dim,
        num_hidden_layers=len(backbone.vit.blocks),
        num_attention_heads=backbone.vit.config.num_heads,
        patch_size=backbone.patch_size,
        image_size=backbone.patch_size * side,
    )
    state = backbone.vit.state_dict() | {"pos_embed": backbone.vit.position_embedding(side, side)}
    model = Dinov2Model.from_pretrained(None, config=config, state_dict=to_huggingface(state))
    return model.eval().to(backbone.mean.device)


def _map_correlation(exact: DinoBackbone, rounded: DinoBackbone, images: Tensor) -> float:
    """Correlation over all pixels of the maps of half of the images, by a DPMM fitted to the rest in float32."""
    head = DPMMHead(exact.embed_dim, n_components=50).to(images.device)
    embeddings = exact(images[::2])[0]
    for _ in range(10):
        head.fit_batch(embeddings)
    size = tuple(images.shape[-2:])
    maps = [upsample_scores(head.score(backbone(images[1::2])[0]), size).flatten() for backbone in (exact, rounded)]
    return float(torch.corrcoef(torch.stack(maps))[0, 1])
