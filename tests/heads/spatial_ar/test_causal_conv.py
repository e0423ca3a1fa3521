"""The convolution over past taps against a masked dense one: values and gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dense_kernels import load_kernel
from dino_uad.heads.spatial_ar.causal_conv import TapConv2d, past_taps


def field(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("centre", [False, True])
def test_equals_a_masked_dense_convolution(centre, dilation, kernel_size, reverse):
    torch.manual_seed(0)
    dense = nn.Conv2d(3, 5, kernel_size, dilation=dilation, padding=dilation * (kernel_size // 2))
    mask = torch.zeros(kernel_size**2)
    mask[: kernel_size**2 // 2 + centre] = 1
    embeddings = field(7, 9)
    turned = embeddings.flip(2, 3) if reverse else embeddings
    kernel = dense.weight * mask.view(kernel_size, kernel_size)
    expected = F.conv2d(turned, kernel, dense.bias, padding=dense.padding, dilation=dilation)

    taps = TapConv2d(3, 5, past_taps(kernel_size, centre), dilation, reverse)
    load_kernel(taps, dense.weight, dense.bias)
    found = taps(embeddings.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert taps.weight.numel() == mask.sum() * 3 * 5
    torch.testing.assert_close(found, expected.flip(2, 3) if reverse else expected)


@pytest.mark.parametrize("size", [(7, 9), (2, 9), (1, 1)])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dilation", [1, 3])
def test_gradients_are_those_of_a_masked_dense_convolution(dilation, reverse, size):
    """Also where a tap lies outside the grid from every place: (2, 9) with a dilation of 3."""
    torch.manual_seed(0)
    dense = nn.Conv2d(3, 5, 3, dilation=dilation, padding=dilation).double()
    mask = torch.zeros(9, dtype=torch.float64)
    mask[:5] = 1
    taps = TapConv2d(3, 5, past_taps(3, centre=True), dilation, reverse).double()
    load_kernel(taps, dense.weight, dense.bias)
    one, other = (field(*size).double().requires_grad_() for _ in range(2))
    turned = one.flip(2, 3) if reverse else one
    expected = F.conv2d(turned, dense.weight * mask.view(3, 3), dense.bias, padding=dilation, dilation=dilation)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    found = taps(other.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    (found * (weights.flip(2, 3) if reverse else weights)).sum().backward()
    torch.testing.assert_close(other.grad, one.grad)
    live = dense.weight.grad.flatten(2)[..., :5].permute(0, 2, 1).flatten(1)
    torch.testing.assert_close(taps.weight.grad, live)
