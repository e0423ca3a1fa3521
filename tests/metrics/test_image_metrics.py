"""Image-level metrics against scikit-learn and the published evaluation code."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from dino_uad.metrics import ImageCurves


def computed(scores, labels):
    metric = ImageCurves()
    for start in range(0, len(scores), 4):
        metric.update((torch.as_tensor(scores[start : start + 4]), torch.as_tensor(labels[start : start + 4])))
    return metric.compute()


def test_equal_to_published_code(golden):
    arrays, _ = golden("anomalydino_metrics")
    found = computed(arrays["image_scores_meantop1p"], arrays["image_labels"])
    assert list(found.values()) == pytest.approx(arrays["image_auroc_ap_f1_meantop1p"].tolist(), abs=1e-8)
    assert list(found) == ["image_auroc", "image_aupr", "image_f1_max"]


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
@pytest.mark.parametrize("decimals", [1, 16])
def test_equal_to_scikit_learn(scale, decimals):
    rng = np.random.default_rng(decimals)
    labels = rng.random(101) < 0.4
    scores = scale * (rng.standard_normal(101) + labels).round(decimals)
    found = computed(scores, labels)
    assert found["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["image_aupr"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_lists_of_numbers_and_of_tensors():
    metric = ImageCurves()
    metric.update(([torch.tensor(0.2), torch.tensor([0.9])], [0, 1]))
    metric.update(([], []))
    assert metric.compute() == {"image_auroc": 1.0, "image_aupr": 1.0, "image_f1_max": 1.0}


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1]])
def test_one_class_is_nan_with_a_warning(labels):
    with pytest.warns(UserWarning, match="image_auroc"):
        assert np.isnan(list(computed(np.arange(len(labels), dtype=float), labels).values())).all()


def test_bad_scores_and_lengths_raise():
    with pytest.raises(ValueError, match="score of image 1 is nan"):
        computed(np.array([0.1, np.nan]), np.array([0, 1]))
    with pytest.raises(ValueError, match="2 image scores and 1 labels"):
        ImageCurves().update((torch.zeros(2), torch.zeros(1)))
