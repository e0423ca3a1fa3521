"""Sums of the E step: exact, the same however rows are divided, on a processor and as a GPU takes them."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from dpmm_mixtures import clusters, fitted_head, multivariate_normal_log_joint
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from devices.absent_gpu import absent_gpu
from dino_uad.heads.dpmm import Components
from dino_uad.heads.dpmm.expectation import batch_sums, log_density


def test_sharp_components_are_exact_in_float32():
    generator = torch.Generator().manual_seed(0)
    means = torch.nn.functional.normalize(torch.randn(8, 384, generator=generator), dim=1)
    variances = torch.full((8, 384), 1e-6)
    variances[4:] = 1e-3
    rows = means.repeat_interleave(20, 0) + variances.sqrt().repeat_interleave(20, 0) * torch.randn(
        160, 384, generator=generator
    )
    components = Components(torch.full((8,), 1 / 8).log(), means, variances)
    exact = multivariate_normal_log_joint(rows, components)
    sums, _ = batch_sums(rows, components)
    assert float(sums.log_likelihood) == pytest.approx(logsumexp(exact, 1).sum(), rel=1e-6)
    np.testing.assert_allclose(sums.counts, 20, rtol=1e-6)
    spread = sums.second / 20 - (sums.first / 20).square()
    np.testing.assert_allclose(spread, rows.double().reshape(8, 20, 384).var(1, correction=0), rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize("n_rows", [0, 3, 1300])
@pytest.mark.parametrize("wide", [False, True])
def test_log_densities_of_any_number_of_rows(n_rows, wide):
    """Of none, as a rank that ran out of images has them, too; enough components that the E step looks for the near."""
    generator = torch.Generator().manual_seed(0)
    means, variances = torch.randn(90, 12, generator=generator), 10 ** (-4 * torch.rand(90, 12, generator=generator))
    components = Components(torch.rand(90, generator=generator).log_softmax(0), means, variances)
    own = torch.randint(90, (n_rows,), generator=generator)
    rows = means[own] + variances[own].sqrt() * torch.randn(n_rows, 12, generator=generator)
    found = log_density(rows, components, wide)
    assert found.shape == (n_rows,)
    if n_rows:
        np.testing.assert_allclose(found, logsumexp(multivariate_normal_log_joint(rows, components), 1), atol=2e-3)


@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_sums_of_shards_are_the_sums_of_the_whole(covariance):
    rows = clusters(500, 6)
    components = fitted_head(rows, covariance=covariance).components
    whole, _ = batch_sums(rows, components)
    shards = [batch_sums(shard, components)[0] for shard in rows.split([130, 370, 0])]
    for total, *parts in zip(whole, *shards, strict=True):
        torch.testing.assert_close(sum(parts), total, rtol=1e-5, atol=1e-5)


@given(st.lists(st.integers(0, 2500), min_size=1, max_size=6), st.data())
@settings(max_examples=20, deadline=None)
def test_sums_of_images_however_they_are_divided(counts, data):
    """Empty images and such as are larger than a chunk, on one rank or two; float64 products have the same sums."""
    rows = clusters(sum(counts), 6)
    components = fitted_head(clusters(500, 6)).components
    whole, _ = batch_sums(rows, components, images=counts)
    cut = data.draw(st.integers(0, len(counts)))
    shards = [
        batch_sums(part, components, images=images_of_rank)[0]
        for part, images_of_rank in zip(
            rows.split([sum(counts[:cut]), sum(counts[cut:])]), (counts[:cut], counts[cut:]), strict=True
        )
    ]
    exact, _ = batch_sums(rows, components, wide=True)
    for total, value, *parts in zip(whole, exact, *shards, strict=True):
        torch.testing.assert_close(sum(parts), total, rtol=1e-6, atol=1e-4)
        torch.testing.assert_close(total, value, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("covariance", ["diag", "full", "spherical"])
def test_vanished_components_change_nothing(covariance):
    rows = clusters(500, 6)
    components = fitted_head(rows, covariance=covariance).components
    log_weights = components.log_weights.clone()
    log_weights[[1, 4]] = -torch.inf
    kept = torch.tensor([0, 2, 3, *range(5, 12)])
    sums, center = batch_sums(rows, components._replace(log_weights=log_weights))
    alone, _ = batch_sums(rows, components.select(kept))
    assert center.shape == (12, 6)
    for name in ("counts", "first", "second"):
        torch.testing.assert_close(getattr(sums, name)[kept], getattr(alone, name))
        assert not getattr(sums, name)[[1, 4]].any()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_sums_agree_with_scipy(device):
    """Also as a GPU takes them, in which components of weight 0 are not left out."""
    rows = clusters(500, 6)
    components = fitted_head(rows).components
    components.log_weights[[1, 4]] = -torch.inf
    joint = multivariate_normal_log_joint(rows, components)
    evidence = logsumexp(joint, 1)
    resp, points = np.exp(joint - evidence[:, None]), rows.double().numpy()
    with absent_gpu() if device == "cuda" else nullcontext():
        found = batch_sums(rows.to(device), Components(*(tensor.to(device) for tensor in components)))
        sums, center = (*(tensor.cpu().numpy() for tensor in found[0]),), found[1].cpu().numpy()
    centred = points[:, None] - center
    expected = resp.sum(0), np.einsum("nk,nkd->kd", resp, centred), np.einsum("nk,nkd->kd", resp, centred**2)
    for value, other in zip(sums, (*expected, evidence.sum()), strict=True):
        np.testing.assert_allclose(value, np.broadcast_to(other, value.shape), rtol=1e-4, atol=1e-4)
