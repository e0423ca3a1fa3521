"""Rows drawn by k-means++: by squared distance, only unmasked ones, never one twice while others are left."""

import pytest
import torch

from dino_uad.heads.plus_plus import plus_plus

ROWS = torch.tensor([[-3.0], [0.0], [1.0], [2.0]])  # their mean is 0


@pytest.mark.parametrize(("uniform", "expected"), [(0.0, 1), (0.17, 1), (0.19, 2), (0.49, 2), (0.51, 3), (0.9999, 3)])
def test_the_second_row_is_drawn_by_squared_distance(uniform, expected):
    """The other rows are 3, 4 and 5 from the first: 9, 16 and 25 of 50."""
    assert plus_plus(ROWS[None], torch.tensor([0.1, uniform])).tolist() == [[0, expected]]


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24, 1.0])
def test_a_masked_row_is_never_drawn(uniform):
    """Not at the end either, where a random number times the total rounds to the total."""
    mask = torch.tensor([[False, True, True, False], [True, False, False, False]])
    drawn = plus_plus(ROWS.expand(2, 4, 1), torch.full((4,), uniform), mask)
    assert mask.gather(1, drawn).all()
    assert set(drawn[0, :2].tolist()) == {1, 2}


@pytest.mark.parametrize("seed", range(10))
def test_a_distance_that_is_rounding_noise_counts_as_none(seed):
    """Of 5000 copies of a row, whose expanded distances are not exactly 0, and another row near it."""
    row = torch.randn(64, generator=torch.Generator().manual_seed(seed))
    near = row + 2e-3 * row.norm() * torch.eye(64)[0]
    rows = torch.cat([row.expand(5000, 64), near[None]])[None]
    assert plus_plus(rows, torch.tensor([0.1, 0.5])).tolist() == [[500, 5000]]


def test_draws_are_those_of_running_sums_in_floating_point():
    generator = torch.Generator().manual_seed(0)
    rows, uniform = torch.randn(300, 16, generator=generator), torch.rand(40, generator=generator)
    chosen = [int(uniform[0] * 300)]
    for draw in uniform[1:].tolist():
        weights = (rows[:, None].double() - rows[chosen].double()).square().sum(dim=2).amin(dim=1)
        chosen.append(int((weights.cumsum(0) <= draw * weights.sum()).sum()))
    assert plus_plus(rows[None], uniform).tolist() == [chosen]


def test_rows_that_coincide_are_drawn_once_before_all_are_drawn_again():
    rows = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(0))
    copies = rows.repeat_interleave(50, dim=1)
    for seed in range(20):
        drawn = plus_plus(copies, torch.rand(3, generator=torch.Generator().manual_seed(seed)))
        assert sorted((drawn[0] // 50).tolist()) == [0, 1, 2]
    assert plus_plus(rows[:, :1], torch.rand(5)).tolist() == [[0] * 5]


def test_an_image_does_not_depend_on_the_others():
    rows = torch.randn(5, 80, 12, generator=torch.Generator().manual_seed(1))
    uniform = torch.rand(6, generator=torch.Generator().manual_seed(2))
    together = plus_plus(rows, uniform)
    assert torch.equal(together, torch.cat([plus_plus(one[None], uniform) for one in rows]))
    assert plus_plus(rows[:0], uniform).shape == (0, 6)
