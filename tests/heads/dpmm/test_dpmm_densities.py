"""Densities that leave out what underflows, against plain ones in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dino_uad.heads.dpmm import densities as dpmm_densities
from dino_uad.heads.dpmm.densities import Densities
from dino_uad.heads.dpmm.gaussian import Components, log_joint


@pytest.fixture(params=[False, True], ids=["plain", "screened"], scope="module", autouse=True)
def screening(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dpmm_densities, "_screening_pays", lambda offset: request.param and offset.dtype == torch.float32)
        yield request.param


def mixture(seed: int, n_components: int, dim: int, spread: float) -> tuple[torch.Tensor, Components]:
    """Rows and the components that they were drawn from; deviations from a thousandth of ``spread`` to ``spread``."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(n_components, dim, generator=generator).double()
    deviations = 10 ** (-3 * torch.rand(n_components, 1, generator=generator).double()) * spread
    own = torch.randint(n_components, (200,), generator=generator)
    rows = means[own] + deviations[own] * torch.randn(200, dim, generator=generator)
    log_weights = torch.rand(n_components, generator=generator).double().mul(10).log_softmax(0)
    rows, log_weights, means, variances = (t.float() for t in (rows, log_weights, means, deviations.square()))
    return rows, Components(log_weights, means, variances.expand(-1, dim).contiguous())


@given(
    seed=st.integers(0, 10_000),
    n_components=st.integers(1, 90),
    dim=st.sampled_from([1, 8, 48]),
    spread=st.sampled_from([0.01, 0.3, 3.0]),
)
def test_responsibilities_are_those_of_float64(seed, n_components, dim, spread):
    rows, components = mixture(seed, n_components, dim, spread)
    joint, numbers, *_ = Densities(components)(rows)
    found = torch.zeros(len(rows), n_components).index_copy_(1, numbers, joint.softmax(1)).double()
    exact = log_joint(rows.double(), Components(*(t.double() for t in components))).softmax(1)
    assert len(set(numbers.tolist())) == len(numbers)
    torch.testing.assert_close(found, exact, atol=2e-3, rtol=0)


def test_log_likelihoods_are_those_of_float64():
    rows, components = mixture(0, 80, 48, 0.3)
    joint = Densities(components)(rows).joint
    exact = log_joint(rows.double(), Components(*(t.double() for t in components))).logsumexp(1)
    torch.testing.assert_close(joint.double().logsumexp(1), exact, atol=2e-3, rtol=1e-6)


def test_far_components_are_left_out_only_by_the_screen(screening):
    rows, components = mixture(1, 80, 48, 0.01)
    numbers = Densities(components)(rows[:3]).numbers
    assert (len(numbers) < 20) == screening
    assert len(numbers) >= 1
