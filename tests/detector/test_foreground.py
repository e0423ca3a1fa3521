"""The foreground: dark air around a body, nothing left out where there is none, one threshold for a scan."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from dino_uad.detector.foreground import Foreground, _without_holes

GRID = (16, 16)


def disc(size=112, radius=36, level=0.5, noise=0.02, seed=0):
    """A bright disc in dark noise, ``[1,1,H,W]``."""
    row = torch.arange(size) - size / 2 + 0.5
    inside = row[:, None] ** 2 + row**2 < radius**2
    air = noise * torch.rand(size, size, generator=torch.Generator().manual_seed(seed))
    return (air + level * inside)[None, None], inside


def _within(pixels, threshold):
    """Otsu's criterion as he states it first: the variance within the two classes."""
    classes = pixels[pixels <= threshold], pixels[pixels > threshold]
    return sum(part.var() * len(part) for part in classes if len(part)) / len(pixels)


def test_auto_is_otsus_threshold_and_keeps_the_body_alone():
    image, inside = disc()
    (threshold,) = Foreground("auto").apart(image)
    pixels = image.flatten().double().numpy()
    spread = [_within(pixels, edge) for edge in np.arange(1, 64) / 64 * pixels.max()]
    assert _within(pixels, float(threshold)) == pytest.approx(min(spread), rel=1e-4)
    mask = Foreground("auto")(image, GRID)
    share = torch.nn.functional.adaptive_avg_pool2d(inside[None, None].float(), GRID)
    assert mask[share > 0.4].all() and not mask[share == 0].any()


def test_holes_in_the_body_are_foreground_and_bays_are_not():
    image, _ = disc()
    image[..., 49:63, 49:63] = 0  # a ventricle
    image[..., 70:84, 0:60] = 0  # a bay, open to the air, that ends there
    mask = Foreground("auto")(image, GRID)[0, 0]
    assert mask[7, 8] and not mask[10, 5]
    assert Foreground(0.1)(image, GRID)[0, 0, 7, 7].item() is False  # a fixed threshold fills nothing


@pytest.mark.parametrize("seed", range(20))
def test_filling_is_scipys(seed):
    mask = torch.rand(9, 11, generator=torch.Generator().manual_seed(seed)) < 0.55
    torch.testing.assert_close(
        _without_holes(mask[None, None])[0, 0], torch.from_numpy(ndimage.binary_fill_holes(mask.numpy()))
    )


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(1)),  # a texture
        1 - disc()[0],  # a dark object on a bright ground, as in pathology
        torch.zeros(1, 1, 112, 112) + 0.3,  # nothing at all
    ],
)
def test_everything_is_foreground_without_a_dark_background(image):
    assert Foreground("auto")(image, GRID).all()


def test_slices_of_a_scan_share_a_threshold_that_air_alone_does_not_move():
    body, air = disc()[0], disc(level=0.0, seed=1)[0]
    slices = torch.cat([air, body, body, air])
    find = Foreground("auto")
    shared = find.together(slices)
    assert (shared == shared[0]).all()
    mask = find(slices, GRID, shared)
    assert not mask[[0, 3]].any() and torch.equal(mask[1], find(body, GRID)[0])
    by_name = find.of_scans([*slices, body[0]], ["a", "a", "a", "a", "b"])
    torch.testing.assert_close(by_name, torch.cat([shared, find.apart(body)]))


def test_fixed_modes():
    image = torch.zeros(1, 1, 28, 28)
    image[..., 14:, 14:] = 0.2
    assert Foreground("none")(image, (2, 2)).all()
    for mode in ("nonzero", 0.1):
        assert Foreground(mode)(image, (2, 2)).flatten().tolist() == [False, False, False, True]
    assert not Foreground(0.3)(image, (2, 2)).any()
    for wrong in ("otsu", 1.5, -0.1, True):
        with pytest.raises(ValueError, match="foreground is"):
            Foreground(wrong)
