"""The Gaussian of the residuals, against scipy and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from scipy.spatial.distance import mahalanobis
from scipy.stats import multivariate_normal
from sklearn.covariance import OAS

from dino_uad.heads.spatial_ar import SpatialARHead
from dino_uad.heads.spatial_ar.residuals import ResidualGaussian, shrunk


def rows(n: int, channels: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, channels)) @ rng.normal(size=(channels, channels)) + rng.normal(size=channels)


@pytest.mark.parametrize(("n", "channels"), [(40, 8), (12, 20), (200, 3)])
def test_shrinkage_is_scikit_learns_but_at_least_a_hundredth(n, channels):
    data = rows(n, channels)
    expected = OAS().fit(data)
    ours = shrunk(torch.from_numpy(np.cov(data.T, bias=True))[None], n)[0]
    if expected.shrinkage_ >= 0.01:
        np.testing.assert_allclose(ours, expected.covariance_, rtol=1e-6, atol=1e-9)
    assert torch.linalg.eigvalsh(ours).min() > 0
    same = shrunk(torch.zeros(1, channels, channels, dtype=torch.float64), n)
    assert torch.linalg.eigvalsh(same).min() > 0


def test_norm_and_density_are_scipys():
    data = rows(400, 6).astype(np.float32)
    residuals = torch.from_numpy(data).T.reshape(1, 1, 6, 20, 20)
    gaussian = ResidualGaussian(6, 1)
    assert not gaussian.fitted
    mask = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0)) > 0.3
    gaussian.measure(residuals[..., :10, :], mask[..., :10, :])
    gaussian.measure(residuals[..., 10:, :], mask[..., 10:, :])
    gaussian.finish()
    used = data[mask.flatten().numpy()].astype(float)
    covariance = shrunk(torch.from_numpy(np.cov(used.T, bias=True))[None], len(used))[0].numpy()
    mean, inverse = used.mean(0), np.linalg.inv(covariance)
    norm = [mahalanobis(row, mean, inverse) ** 2 for row in data]
    np.testing.assert_allclose(gaussian.squared_norm(residuals).flatten(), norm, rtol=1e-4)
    density = multivariate_normal(mean, covariance).logpdf(data)
    np.testing.assert_allclose(gaussian.log_density(residuals).flatten(), density, rtol=1e-4, atol=1e-3)


def test_a_head_scores_validation_patches_at_about_one_and_others_higher():
    generator = torch.Generator().manual_seed(1)
    head = SpatialARHead(8, hidden=8, dilations=(1,), direction="both", covariance="full", standardize=True)
    normal = torch.randn(12, 8, 10, 10, generator=generator) * torch.arange(1.0, 9.0)[:, None, None]
    head.scale.measure(normal)
    head.scale.finish()
    head.train()(head.standardized(normal))
    head.eval()
    head.neighbourhood = 3
    with pytest.raises(RuntimeError, match="no covariance yet"):
        head.score(normal)
    head.measure_residuals(normal)
    head.end_measuring()
    scores = head.score(normal)
    assert scores.shape == (12, 1, 10, 10) and abs(float(scores.mean()) - 1) < 0.1
    odd = normal.clone()
    odd[:, 0, 4:7, 4:7] += 8  # eight standard deviations in the channel that varies least
    assert head.score(odd)[..., 5, 5].mean() > 3 * scores[..., 5, 5].mean()
    assert head.log_likelihood(odd).mean() < head.log_likelihood(normal).mean()
    again = SpatialARHead(8, hidden=8, dilations=(1,), direction="both", covariance="full", standardize=True).eval()
    again.neighbourhood = 3
    again.load_state_dict(head.state_dict())
    torch.testing.assert_close(again.score(odd), head.score(odd))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_residuals_are_averaged_with_a_share_of_their_own(share):
    head = SpatialARHead(4, hidden=4, dilations=(1,), direction="both", own_share=share)
    head.train()(torch.zeros(1, 4, 2, 2))
    head.eval().neighbourhood = 3
    images = torch.randn(2, 4, 6, 7, generator=torch.Generator().manual_seed(2))
    found = head.squared_errors(images)
    residuals = head.residuals(images).detach().numpy()
    # scipy's mean repeats the border, where ours averages over those that are there: compared inside
    means = uniform_filter(residuals, size=(1, 1, 1, 3, 3))
    expected = np.square(share * residuals + (1 - share) * means).sum(axis=2)
    np.testing.assert_allclose(found[..., 1:-1, 1:-1].detach(), expected[..., 1:-1, 1:-1], rtol=1e-4)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_that_is_none(share):
    with pytest.raises(ValueError, match=f"own_share is {share}; expected a number in .0, 1."):
        SpatialARHead(4, own_share=share)
