"""Weights of dense convolutions, such as the published Spatial AR's, as the taps of ours."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dino_uad.heads.spatial_ar.causal_conv import TapCNN, TapConv2d


@torch.no_grad()
def load_kernel(layer: TapConv2d, kernel: Tensor, bias: Tensor) -> None:
    """Copy the live taps of a dense kernel ``[out_channels,in_channels,k,k]``."""
    centre = kernel.shape[-1] // 2
    live = [kernel[:, :, centre + row, centre + column] for row, column in layer.taps]
    layer.weight.copy_(torch.cat(live, dim=1))
    layer.bias.copy_(bias)


def load_reference(network: TapCNN, state_dict: Mapping[str, Tensor]) -> None:
    """Load a checkpoint of the published code (eerdil/spatial-ar-dinov3-uad).

    Its layers are ``net.0, net.2, ...`` with dense ``weight`` ``[O,I,k,k]``, ``bias`` and the 0/1 ``mask``, which the
    taps replace.
    """
    assert {key for key in state_dict if key.endswith(".weight")} == {
        f"net.{2 * i}.weight" for i in range(len(network))
    }
    for i, layer in enumerate(network):
        load_kernel(layer, state_dict[f"net.{2 * i}.weight"], state_dict[f"net.{2 * i}.bias"])
