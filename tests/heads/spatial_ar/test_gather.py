"""Neighbours side by side, on a processor and as a GPU selects them, against torch's ``unfold``."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from devices.absent_gpu import absent_gpu
from dino_uad.heads.spatial_ar.causal_conv import past_taps
from dino_uad.heads.spatial_ar.gather import gather, shifted, shifted_back


def unfolded(tokens, taps, step):
    """What ``torch.nn.functional.unfold`` gives for the taps of a 3x3 kernel."""
    grid = tokens.permute(0, 3, 1, 2)
    if step < 0:
        grid = grid.flip(2, 3)
    windows = (
        F.unfold(grid, 3, dilation=abs(step), padding=abs(step)).unflatten(1, (-1, 9)).unflatten(3, grid.shape[2:])
    )
    live = torch.stack([windows[:, :, 4 + 3 * row + column] for row, column in taps], dim=1)
    live = live.flip(3, 4) if step < 0 else live
    return live.permute(0, 3, 4, 1, 2).flatten(3)


@pytest.mark.parametrize("step", [1, 3, -2, 9])
@pytest.mark.parametrize("centre", [False, True])
def test_copies_for_a_processor_and_their_gradients(step, centre):
    taps = past_taps(3, centre)
    offsets = tuple((step * row, step * column) for row, column in taps)
    tokens = torch.rand(2, 5, 7, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 5, 7, 3 * len(taps), dtype=torch.float64)
    expected = unfolded(tokens, taps, step)
    (slopes,) = torch.autograd.grad(expected, tokens, weight)
    assert torch.equal(shifted(tokens, offsets), expected)
    torch.testing.assert_close(shifted_back(weight, offsets), slopes, rtol=0, atol=1e-15)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("step", [1, 3, -2, 9])
@pytest.mark.parametrize("centre", [False, True])
def test_neighbours_and_their_gradients(device, step, centre):
    taps = past_taps(3, centre)
    tokens = torch.rand(2, 5, 7, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 5, 7, 3 * len(taps), dtype=torch.float64)
    expected = unfolded(tokens, taps, step)
    (slopes,) = torch.autograd.grad(expected, tokens, weight)
    with absent_gpu() if device == "cuda" else nullcontext():
        here = tokens.detach().to(device).requires_grad_()
        found = gather(here, tuple((step * row, step * column) for row, column in taps))
        (gradient,) = torch.autograd.grad(found, here, weight.to(device))
        found, gradient = found.detach().cpu(), gradient.cpu()
    assert torch.equal(found, expected)
    torch.testing.assert_close(gradient, slopes, rtol=0, atol=1e-15)
