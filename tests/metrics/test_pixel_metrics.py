"""Pooled pixel metrics against scikit-learn and the published evaluation code."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from dino_uad.metrics import PixelCurves

SCORES = {
    "uniform": lambda rng, n: rng.random(n),
    "tied": lambda rng, n: rng.integers(0, 5, n) / 4,
    "constant": lambda rng, n: np.full(n, 0.3),
    "huge": lambda rng, n: rng.random(n) * 3e38,
    "tiny": lambda rng, n: rng.random(n) * 1e-36,
    "denormal": lambda rng, n: rng.random(n) * 1e-40,
    "negative": lambda rng, n: -np.exp(5 * rng.standard_normal(n)),
    "offset": lambda rng, n: 1e5 + rng.random(n),
    "both signs": lambda rng, n: rng.standard_normal(n) * np.exp(8 * rng.standard_normal(n)),
    "masked": lambda rng, n: rng.random(n) * (rng.random(n) < 0.6),
    "signed zeros": lambda rng, n: rng.choice([0.0, -0.0, 1.0, -1.0], n),
}


def reference(scores, labels):
    precision, recall, _ = precision_recall_curve(labels, scores)
    return {
        "pixel_auroc": roc_auc_score(labels, scores),
        "pixel_aupr": average_precision_score(labels, scores),
        "pixel_f1_max": np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)),
    }


def computed(scores, labels, **kwargs):
    metric = PixelCurves(**kwargs)
    metric.update((torch.as_tensor(scores).reshape(1, 1, 1, -1), torch.as_tensor(labels).reshape(1, 1, 1, -1)))
    return metric.compute(), metric.error_bounds()


@pytest.mark.parametrize("kind", SCORES)
def test_equal_to_scikit_learn(kind):
    rng = np.random.default_rng(0)
    scores = SCORES[kind](rng, 40_000).astype(np.float32)
    # The larger scores are anomalous more often, so that the metrics are away from their chance levels.
    rank = scores.argsort().argsort() / len(scores)
    labels = rng.random(len(scores)) < 0.1 * rank
    found, _ = computed(scores, labels)
    assert found == pytest.approx(reference(scores, labels), abs=1e-4)


def test_equal_to_published_code(golden):
    arrays, _ = golden("anomalydino_metrics")
    found, _ = computed(arrays["maps"], arrays["masks"])
    expected = {
        name: float(arrays[key]) for name, key in zip(found, ("pixel_auroc", "pixel_ap", "pixel_f1_max"), strict=True)
    }
    assert found == pytest.approx(expected, abs=1e-4)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
pixels = st.lists(st.tuples(st.one_of(finite, st.integers(-3, 3).map(float)), st.booleans()), min_size=2, max_size=60)


@given(pixels, st.sampled_from([2, 16, 1 << 10]))
def test_binning_error_is_within_its_bound(pairs, bins):
    scores, labels = np.float32([s for s, _ in pairs]), np.array([y for _, y in pairs])
    if labels.all() or not labels.any():
        return
    found, bounds = computed(scores, labels, bins=bins)
    for name, expected in reference(scores, labels).items():
        assert abs(found[name] - expected) <= bounds[name] + 1e-9


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from([np.exp, np.cbrt, np.arctan, lambda x: 1e6 * x, lambda x: x / 3e30]))
def test_strictly_monotone_transforms_do_not_matter(seed, transform):
    rng = np.random.default_rng(seed)
    scores = (rng.integers(-2000, 2000, 500) / 500).astype(np.float32)
    labels = rng.random(500) < 0.3
    plain, bounds = computed(scores, labels, bins=1 << 12)
    transformed = transform(scores.astype(np.float64)).astype(np.float32)
    moved, moved_bounds = computed(transformed, labels, bins=1 << 12)
    for name, value in plain.items():
        assert abs(value - moved[name]) <= bounds[name] + moved_bounds[name] + 1e-9


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_nan_with_a_warning(label):
    with pytest.warns(UserWarning, match="pixel_auroc, pixel_aupr, pixel_f1_max undefined"):
        found, _ = computed(np.random.default_rng(0).random(50), np.full(50, label))
    assert np.isnan(list(found.values())).all()


def test_no_pixels_is_nan_with_a_warning():
    with pytest.warns(UserWarning, match="0 normal and 0 anomalous"):
        assert np.isnan(PixelCurves().compute()["pixel_auroc"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_raise(bad):
    with pytest.raises(ValueError, match=r"anomaly scores contain (NaN|Inf)"):
        computed(np.array([0.1, bad]), np.array([0, 1]))


def test_list_of_differing_sizes_equals_the_pooled_pixels_and_masks_may_be_255():
    rng = np.random.default_rng(1)
    maps = [rng.random((1, h, w)).astype(np.float32) for h, w in ((5, 9), (20, 3), (1, 1))]
    masks = [rng.random(m.shape) < 0.4 for m in maps]
    metric = PixelCurves()
    metric.update(([MetaTensor(m) for m in maps], [torch.as_tensor(255 * m.astype(np.uint8)) for m in masks]))
    pooled = (np.concatenate([a.ravel() for a in arrays]) for arrays in (maps, masks))
    assert metric.compute() == pytest.approx(reference(*pooled))
    metric.reset()
    with pytest.warns(UserWarning):
        assert np.isnan(metric.compute()["pixel_auroc"])


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 8, 8), r"shape \(2, 1, 4, 4\) and its mask \(2, 1, 8, 8\)"),
        ([torch.zeros(1, 4, 4)], [], "1 anomaly maps and 0 masks"),
    ],
)
def test_unequal_shapes_raise(maps, masks, message):
    with pytest.raises(ValueError, match=message):
        PixelCurves().update((maps, masks))


def test_in_a_monai_evaluator_as_key_metric_and_as_named_views():
    generator = torch.Generator().manual_seed(0)
    data = [{"image": torch.rand(3, 1, 8, 8, generator=generator)} for _ in range(3)]
    for batch in data:
        batch["label"] = (batch["image"] + torch.rand(3, 1, 8, 8, generator=generator) > 1.2).float()
    curves = PixelCurves(output_transform=from_engine(["pred", "label"]))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=data,
        network=torch.nn.Identity(),
        key_val_metric={"pixel_auroc": curves},
        additional_metrics={"val_aupr": curves["pixel_aupr"], "val_auroc": curves["pixel_auroc"]},
    )
    for _ in range(2):
        evaluator.run()
        scores, labels = (torch.cat([batch[key].ravel() for batch in data]).numpy() for key in ("image", "label"))
        expected = reference(scores, labels)
        expected |= {"val_aupr": expected["pixel_aupr"], "val_auroc": expected["pixel_auroc"]}
        assert evaluator.state.metrics == pytest.approx(expected)
        assert evaluator.state.best_metric == pytest.approx(expected["pixel_auroc"])
