"""Units: -log10 of the upper tail, checked against distributions whose tail is known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from dino_uad.detector.units import FEWEST, KNOTS, TAIL, Units
from dino_uad.measure import MEGABYTE
from helpers import held_megabytes


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


def test_beyond_the_table_it_is_the_upper_tail_of_its_pareto_distribution():
    units = fitted(torch.from_numpy(stats.genpareto(0.25, scale=2.0).rvs(20_000, random_state=0)))
    last, (scale, shape) = units.knots[-1].item(), units.tail.tolist()
    scores = last + torch.tensor([0.0, 1.0, 10.0, 1000.0])
    beyond = stats.genpareto(shape, scale=scale).sf(scores.double().numpy() - last)
    assert units(scores).tolist() == pytest.approx(units.levels[-1].item() - np.log10(beyond), rel=1e-5)


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


def knots_of_every_bin(values, counts):
    """The first value that at most each share of the patches is above, by a comparison with all of them."""
    counts = counts.double()
    higher = (counts.sum() - counts.cumsum(0)) / counts.sum()
    tail = min(max(TAIL, FEWEST / float(counts.sum())), 0.5)
    levels = torch.linspace(0, -math.log10(tail), KNOTS, dtype=torch.float64)
    above = (higher[:, None] <= 10**-levels).double().argmax(dim=0)
    above[0] = 0
    return values.double()[above].float()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 49, 64, 1000, 30_000])
@pytest.mark.parametrize("most", [1, 2, 1000])
def test_knots_are_those_of_a_comparison_with_every_bin(count, most):
    generator = torch.Generator().manual_seed(count)
    values = torch.randn(count, generator=generator).sort().values
    counts = torch.randint(1, most + 1, (count,), generator=generator)
    units = Units()
    units.fit(values, counts)
    assert units.knots.equal(knots_of_every_bin(values, counts))


def test_a_fit_holds_little_beside_its_bins():
    values = torch.arange(1 << 18).double()
    counts, units = torch.ones(len(values)), Units()
    units.fit(values, counts)
    grown = held_megabytes(lambda: units.fit(values, counts))
    assert grown < 16 * values.nbytes / MEGABYTE
