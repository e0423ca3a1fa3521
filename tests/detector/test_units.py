"""Units: -log10 of the upper tail, checked against distributions whose tail is known."""

import math

import pytest
import torch
from scipy import stats

from dino_uad.detector.units import KNOTS, Units


def fitted(values):
    units = Units()
    units.fit(values.sort().values, torch.ones(len(values)))
    return units


def test_within_the_data_it_is_the_share_of_patches_that_score_higher():
    values = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    for score in (0.0, 0.1, 0.5, 0.9, 0.98):
        expected = -math.log10((values > score).double().mean())
        assert fitted(values)(torch.tensor(score)).item() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("distribution", "tolerance"),
    [(stats.expon(scale=0.3), 0.5), (stats.genpareto(0.25, scale=2.0), 0.5), (stats.norm(), 1.0)],
)
def test_far_in_the_tail_it_extrapolates_the_distribution(distribution, tolerance):
    values = torch.from_numpy(distribution.rvs(100_000, random_state=0))
    for tail in (1e-3, 1e-4, 1e-5):
        score = torch.tensor(distribution.isf(tail))
        assert fitted(values)(score).item() == pytest.approx(-math.log10(tail), abs=tolerance)


def test_a_tail_that_ends_is_not_taken_for_an_end():
    units = fitted(torch.rand(10_000, generator=torch.Generator().manual_seed(0)))
    higher = units(torch.linspace(0.9, 3, 100))
    assert (higher.diff() > 0).all() and higher.isfinite().all()


@pytest.mark.parametrize("values", [torch.zeros(5), torch.tensor([1.0]), torch.tensor([0.0, 0.0, 0.0, 1.0])])
def test_few_or_equal_scores_give_finite_units_that_do_not_fall(values):
    found = fitted(values)(torch.linspace(-1, 2, 31))
    assert found.isfinite().all() and (found.diff() >= 0).all() and (found >= 0).all()


def test_counts_weigh_and_the_size_is_constant():
    values = torch.rand(500, generator=torch.Generator().manual_seed(0)).sort().values
    twice = Units()
    twice.fit(values, torch.full((500,), 2))
    repeated = fitted(values.repeat_interleave(2))
    probe = torch.linspace(0, 2, 50)
    torch.testing.assert_close(twice(probe), repeated(probe), rtol=1e-3, atol=1e-3)
    assert sum(value.numel() for value in twice.state_dict().values()) == 2 * KNOTS + 2
