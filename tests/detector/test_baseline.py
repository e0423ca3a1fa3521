"""Image baseline and image score on scores whose answer is known."""

import numpy as np
import pytest
import torch

from dino_uad.detector.baseline import ImageBaseline
from dino_uad.heads.image_level import image_score


def scores(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(4, 1, 12, 12, generator=generator), torch.rand(4, 1, 12, 12, generator=generator) > 0.4


def test_it_is_numpys_percentile_of_the_foreground():
    values, mask = scores()
    mask[3] = False
    found = ImageBaseline(1.0).measure(values, mask)
    expected = [np.percentile(value[inside].numpy(), 25) for value, inside in zip(values[:3], mask[:3], strict=True)]
    np.testing.assert_allclose(found.numpy(), [*expected, 0.0], rtol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_is_subtracted_and_a_brighter_image_is_brought_back(share):
    values, mask = scores()
    shifted = ImageBaseline(share)(values + 3, mask) - ImageBaseline(share)(values, mask)
    torch.testing.assert_close(shifted, torch.full_like(values, 3 * (1 - share)))


def test_the_bound_keeps_a_lesion_that_fills_the_foreground():
    values, mask = torch.zeros(1, 1, 10, 10) + 0.1, torch.ones(1, 1, 10, 10, dtype=torch.bool)
    values[..., :9, :] = 1.0  # 90 % of the foreground
    baseline = ImageBaseline(1.0)
    assert baseline(values, mask).max() == 0  # unbounded, the lesion is its own baseline
    baseline.highest.fill_(0.2)
    assert baseline(values, mask).max() == pytest.approx(0.8)


@pytest.mark.parametrize("power", [-0.5, 0.0, 0.4, 1.0, 1.6])
def test_auto_is_the_slope_of_the_logarithms(power):
    rng = np.random.default_rng(0)
    baselines = rng.lognormal(-2, 0.3, 40)
    peaks = 3 * baselines**power * rng.lognormal(0, 0.05, 40)
    baseline = ImageBaseline("auto")
    baseline.fit(torch.from_numpy(baselines), torch.from_numpy(peaks))
    slope = np.polyfit(np.log(baselines), np.log(peaks), 1)[0]
    assert float(baseline.share) == pytest.approx(min(max(slope, 0), 1), rel=1e-5)
    assert float(baseline.share) == pytest.approx(min(max(power, 0), 1), abs=0.05)
    assert float(baseline.highest) == pytest.approx(baselines.max())
    tenfold = ImageBaseline("auto")  # the unit of the scores does not matter
    tenfold.fit(10 * torch.from_numpy(baselines), 10 * torch.from_numpy(peaks))
    assert float(tenfold.share) == pytest.approx(float(baseline.share), rel=1e-5)


@pytest.mark.parametrize(
    "baselines", [torch.linspace(1, 2, 7), torch.linspace(-1, 2, 40), torch.ones(40), torch.arange(40.0)]
)
def test_auto_is_a_half_where_too_little_is_known(baselines):
    baseline = ImageBaseline("auto")
    baseline.fit(baselines, 2 * baselines + 1)
    assert float(baseline.share) == 0.5


def test_a_share_that_is_set_stays():
    baseline = ImageBaseline(0.3)
    baseline.fit(torch.linspace(1, 2, 40), torch.linspace(1, 2, 40))
    assert float(baseline.share) == pytest.approx(0.3) and float(baseline.highest) == 2


def test_image_score_is_the_mean_of_the_largest_hundredth_of_the_foreground():
    values = torch.arange(400.0).view(1, 1, 20, 20)
    assert image_score(values).item() == pytest.approx((399 + 398 + 397 + 396) / 4)
    mask = torch.ones_like(values, dtype=torch.bool)
    assert image_score(values, mask).item() == image_score(values).item()
    mask[..., 10:, :] = False  # 200 patches: two count
    assert image_score(values, mask).item() == pytest.approx((199 + 198) / 2)
    assert image_score(values, mask & False).item() == 0
    assert image_score(values, mask, fewest=5).item() == pytest.approx(197)
    mask[..., 0, 3:], mask[..., 1:, :] = False, False  # three patches are all there are
    assert image_score(values, mask, fewest=5).item() == pytest.approx(1)


@pytest.mark.parametrize("share", [1.5, -0.1, "automatic"])
def test_a_share_that_is_none(share):
    with pytest.raises(ValueError, match=r"in \[0, 1\], or 'auto'"):
        ImageBaseline(share)
