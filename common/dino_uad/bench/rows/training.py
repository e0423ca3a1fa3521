"""A training step of Spatial AR, against the same network as masked ``nn.Conv2d``, which is how it was published."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from dino_uad.bench.row import Row
from dino_uad.bench.settings import Settings
from dino_uad.bench.synthetic import patch_embeddings
from dino_uad.heads.spatial_ar import SpatialARHead

DIM = 384
STEPS = 3  # after which both must have the same loss


@contextmanager
def _convolutions_in_float32() -> Iterator[None]:
    """Both sides in one precision: on a GPU, torch takes TF32 for convolutions, but not for products."""
    conv = torch.backends.cudnn.conv
    before, conv.fp32_precision = conv.fp32_precision, "ieee"
    try:
        yield
    finally:
        conv.fp32_precision = before


@_convolutions_in_float32()
def autoregressive_training(settings: Settings) -> Row:
    """Forward, backward and AdamW on the bundle's batch of 8 images of 448 px, in one direction of its two."""
    side, hidden, images = settings.size((32, 256, 8), (6, 16, 2))
    size = {"grid": f"{side}×{side}", "C": DIM, "hidden": hidden, "images": images}
    row = Row("ar_training", "A training step of Spatial AR, one direction", size, settings)
    batch = patch_embeddings(images, side, DIM).float().to(settings.device)
    torch.manual_seed(0)
    ours = SpatialARHead(DIM, hidden, dilations=(1, 2, 4, 8)).to(settings.device).train()
    plain = MaskedCNN(ours).to(settings.device)
    losses = [
        [float(_step(network, optimizer, batch)) for _ in range(STEPS)] for network, optimizer in _pairs(ours, plain)
    ]
    row.check(
        f"loss of step {STEPS} against masked convolutions, relative", abs(losses[0][-1] / losses[1][-1] - 1), 1e-4
    )
    row.time(
        {
            name: lambda pair=pair: _step(*pair, batch)
            for name, pair in zip(("ours", "masked nn.Conv2d"), _pairs(ours, plain), strict=True)
        }
    )
    row.ratio("masked nn.Conv2d / ours", "masked nn.Conv2d", "ours", at_least=1)
    row.figure("steps a second, ours", 1 / row.timings["ours"].wall_median, "/s")
    return row


def _pairs(*networks: nn.Module) -> list[tuple[nn.Module, torch.optim.Optimizer]]:
    """Copies of the networks, each with its optimiser."""
    copies = [copy.deepcopy(network) for network in networks]
    return [(network, torch.optim.AdamW(network.parameters(), 1e-3, fused=True)) for network in copies]


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    loss = functional.mse_loss(network(batch), batch)
    loss.backward()
    optimizer.step()
    return loss.detach()


class MaskedConv2d(nn.Conv2d):
    """A convolution whose kernel is multiplied by a mask of its taps in every step."""

    def __init__(self, channels: int, outputs: int, taps: Sequence[tuple[int, int]], dilation: int) -> None:
        super().__init__(channels, outputs, 3, padding=dilation, dilation=dilation)
        self.register_buffer("mask", torch.zeros(1, 1, 3, 3))
        for row, column in taps:
            self.mask[..., 1 + row, 1 + column] = 1

    def forward(self, grid: Tensor) -> Tensor:
        """``[B,C,h,w]`` to ``[B,O,h,w]``."""
        return self._conv_forward(grid, self.weight * self.mask, self.bias)


class MaskedCNN(nn.Sequential):
    """The forward network of a head, with its weights."""

    def __init__(self, head: SpatialARHead) -> None:
        layers: list[nn.Module] = []
        for layer in head.passes[0]:
            channels = layer.in_features // len(layer.taps)
            conv = MaskedConv2d(channels, layer.out_features, layer.taps, layer.step)
            with torch.no_grad():
                for (row, column), weight in zip(layer.taps, layer.weight.split(channels, 1), strict=True):
                    conv.weight[:, :, 1 + row, 1 + column] = weight
                conv.bias.copy_(layer.bias)
            layers += [conv, nn.ReLU()]
        super().__init__(*layers[:-1])
