"""AUPRO against the published evaluation code and a direct computation per region."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from dino_uad.metrics import AUPRO
from dino_uad.metrics.aupro import region_weights


def aupro_by_definition(maps, masks, limit):
    """Threshold by threshold and region by region, in float64."""
    labelled = [ndimage.label(mask, structure=np.ones((3, 3))) for mask in masks]
    normal = np.concatenate([m[~y] for m, y in zip(maps, masks, strict=True)])
    curve = [(0.0, 0.0)]
    for t in np.unique(maps)[::-1]:
        overlaps = [
            np.mean(m[lab == r] >= t) for m, (lab, n) in zip(maps, labelled, strict=True) for r in range(1, n + 1)
        ]
        curve.append((np.mean(normal >= t), np.mean(overlaps)))
    fpr, pro = np.array(curve).T
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr, fpr[1:], pro, pro[1:], strict=False):
        if x0 < limit and x1 > x0:
            x = min(x1, limit)
            area += (x - x0) * (y0 + y0 + (y1 - y0) * (x - x0) / (x1 - x0)) / 2
    return area / limit


def computed(maps, masks, **kwargs):
    metric = AUPRO(**kwargs)
    metric.update(([torch.as_tensor(m)[None] for m in maps], [torch.as_tensor(m)[None] for m in masks]))
    return metric.compute()


def test_equal_to_published_code_at_every_limit(golden):
    arrays, _ = golden("anomalydino_metrics")
    for limit, expected in zip(arrays["aupro_limits"], arrays["aupro"], strict=True):
        assert computed(arrays["maps"], arrays["masks"], limit=float(limit)) == pytest.approx(expected, abs=1e-4)
    found = [region_weights(mask)[mask].sum() for mask in torch.as_tensor(arrays["masks"])]
    assert found == pytest.approx(arrays["n_regions"].tolist())


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["distinct", "tied", "constant", "huge"])
def test_equal_to_the_definition(kind, limit):
    rng = np.random.default_rng(0)
    masks = ndimage.uniform_filter(rng.random((3, 14, 15)), size=(1, 3, 3)) > 0.6
    maps = rng.random(masks.shape) + 0.3 * masks
    maps = {"distinct": maps, "tied": maps.round(1), "constant": np.ones_like(maps), "huge": 1e38 * maps}[kind]
    maps = maps.astype(np.float32)
    assert computed(maps, masks, limit=limit) == pytest.approx(aupro_by_definition(maps, masks, limit), abs=1e-6)


def test_regions_are_8_connected():
    mask = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1]], dtype=torch.bool)
    weights = region_weights(mask)
    assert weights[mask].tolist() == [0.5] * 4 and (weights[~mask] == 1).all()


def test_diagonal_regions_of_a_volume_are_26_connected():
    mask = torch.zeros(3, 3, 3, dtype=torch.bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert region_weights(mask)[mask].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("label", [False, True])
def test_without_regions_or_normal_pixels_nan_with_a_warning(label):
    maps = np.random.default_rng(0).random((1, 5, 5)).astype(np.float32)
    with pytest.warns(UserWarning, match="aupro undefined"):
        assert np.isnan(computed(maps, np.full(maps.shape, label)))


def test_errors():
    with pytest.raises(ValueError, match=r"limit is 0; expected a number in .0, 1."):
        AUPRO(limit=0)
    with pytest.raises(ValueError, match="Inf"):
        computed(np.full((1, 2, 2), np.inf, dtype=np.float32), np.eye(2, dtype=bool)[None])
