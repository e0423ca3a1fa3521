"""Causal convolutions on the embedding grid that store and multiply only the taps a mask would leave."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dino_uad.heads.spatial_ar.gather import Taps, gather
from dino_uad.heads.spatial_ar.tap_product import tap_product
from dino_uad.tracing import is_traced


def past_taps(kernel_size: int = 3, centre: bool = False) -> Taps:
    """(row, column) offsets of a square kernel that come before its centre in raster order.

    These are the live taps of the masks A (without the centre) and B (with it) of PixelCNN (van den Oord et al.,
    "Pixel recurrent neural networks", 2016, sec. 3.4): 4 and 5 of the 9 of a 3x3 kernel.
    """
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and at least 3 to have a centre and a past, found {kernel_size}")
    reach = range(-(kernel_size // 2), kernel_size // 2 + 1)
    return tuple((row, column) for row in reach for column in reach if (row, column) < (0, int(centre)))


class TapConv2d(nn.Linear):
    """Convolution over an explicit list of kernel taps: ``y[i,j] = b + sum_t W_t x[i + d row_t, j + d column_t]``.

    The neighbours are gathered side by side and multiplied in a matrix product, so that a masked tap costs neither a
    parameter nor a multiplication, and the default initialisation sees the true fan-in. Outside the grid ``x`` is 0.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        taps: (row, column) offsets in units of ``dilation``.
        dilation: distance between taps in tokens.
        reverse: look the other way, ``x[i - d row_t, j - d column_t]``; the same as flipping the grid in both axes
            before and after, without the copies.
    """

    def __init__(self, in_channels: int, out_channels: int, taps: Taps, dilation: int = 1, reverse: bool = False):
        if dilation < 1:
            raise ValueError(f"dilation must be at least 1 token, found {dilation}")
        super().__init__(len(taps) * in_channels, out_channels)
        self.taps = taps
        self.step = -dilation if reverse else dilation

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B,h,w,in_channels]`` to ``[B,h,w,out_channels]``, channels last."""
        if torch.is_autocast_enabled(tokens.device.type):  # once, not once a tap
            tokens = tokens.to(torch.get_autocast_dtype(tokens.device.type))
        offsets = tuple((self.step * row, self.step * column) for row, column in self.taps)
        if tokens.is_cuda or is_traced():
            return super().forward(gather(tokens, offsets))
        return tap_product(tokens, self.weight.to(tokens.dtype), self.bias.to(tokens.dtype), offsets)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, taps={self.taps}, step={self.step}"


class TapCNN(nn.ModuleList):
    """Dilated convolutions with ReLU between them; the first has taps of its own, which decide what the output may see.

    Args:
        channels: widths of input, hidden layers and output, one more than there are layers.
        dilations: of every layer but the last, which repeats the last entry.
        first_taps: taps of the first layer; without (0, 0) and with ``taps`` on one side, no output sees its own token.
        taps: taps of the other layers.
        reverse: run from the last token to the first, see :class:`TapConv2d`.
    """

    def __init__(
        self, channels: Sequence[int], dilations: Sequence[int], first_taps: Taps, taps: Taps, reverse: bool = False
    ) -> None:
        if len(dilations) != len(channels) - 2:
            raise ValueError(
                f"{len(dilations)} dilations found for {len(channels) - 1} layers; give one for each layer but the "
                "last, which repeats the last entry"
            )
        super().__init__(
            TapConv2d(channels[i], channels[i + 1], taps if i else first_taps, dilation, reverse)
            for i, dilation in enumerate([*dilations, dilations[-1]])
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B,h,w,channels[0]]`` to ``[B,h,w,channels[-1]]``, channels last."""
        for i, layer in enumerate(self):
            tokens = layer(tokens.relu() if i else tokens)
        return tokens
