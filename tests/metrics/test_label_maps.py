"""Dice of the label maps of inference, grown and not, against a count by hand and those that inference writes."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from dino_uad.findings import ScanGrid, extract_findings
from dino_uad.metrics import LabelMaps

ROW = torch.tensor(
    [[0.0, 2.0, 4.0, 5.0, 4.0, 0.0, 3.0, 0.0]]
)  # a finding from 5, its flank, and a place that grows none


def computed(pairs, scans=None, threshold=5.0, grow=(4.0, 2.0), rates=(0.01, 0.1)):
    metric = LabelMaps(threshold, grow, rates)
    maps, masks = zip(*pairs, strict=True)
    metric.update((list(maps), list(masks), scans or range(len(maps))))
    return metric.compute()


def test_counts_by_hand():
    lesion = torch.tensor([[0, 0, 1, 1, 1, 1, 0, 0]])
    found = computed([(ROW[None], lesion[None]), (ROW[None] - 1, lesion[None]), (ROW[None], lesion[None] * 0)])
    assert found["label_dice"] == pytest.approx(2 * 1 / (2 + 8))  # one voxel of four marked, none, and one false
    assert found["label_dice_per_scan"] == pytest.approx((2 / 5 + 0) / 2)
    assert found["label_dice_grow1"] == pytest.approx(2 * 3 / (6 + 8))
    assert found["label_dice_grow10_per_scan"] == pytest.approx((2 * 3 / (4 + 4) + 0) / 2)
    assert found["label_lesion_scans"] == 0.5 and found["label_empty_normal"] == 0


def test_a_lesion_of_one_pixel_counts():
    found = computed([(ROW[None], (torch.arange(8) == 3).long()[None, None])])
    assert found["label_dice"] == found["label_dice_per_scan"] == found["label_lesion_scans"] == 1


def test_slices_of_a_volume_grow_together_and_are_normal_one_by_one():
    lesion = torch.tensor([[0, 0, 1, 1, 1, 0, 0, 0]])
    found = computed([(ROW[None], lesion[None]), (ROW[None] - 1, lesion[None] * 0)], [7, 7])
    # In the second slice nothing reaches 5; what reaches 4 or 2 touches the finding of the first.
    assert found["label_empty_normal"] == 1 and found["label_dice_grow1"] == pytest.approx(2 * 3 / (4 + 3))
    apart = computed([(ROW[None], lesion[None]), (ROW[None] - 1, lesion[None] * 0)])
    assert apart["label_dice_grow1"] == 1


def test_dice_is_that_of_the_findings_of_inference():
    rng = np.random.default_rng(0)
    scores = gaussian_filter(rng.normal(size=(6, 40, 40)), 2).astype(np.float32)
    mask = torch.from_numpy(gaussian_filter(rng.normal(size=scores.shape), 3) > 0.05)
    high, low = np.quantile(scores, [0.99, 0.9]).tolist()
    found = computed(
        list(zip(torch.tensor(scores)[:, None], mask[:, None], strict=True)), ["a"] * 6, high, [low], [0.1]
    )
    for key, grow in (("label_dice", None), ("label_dice_grow10", low)):
        labels, _ = extract_findings(scores, ScanGrid(scores.shape, np.eye(4), 0), high, grow)
        marked = labels > 0
        assert found[key] == pytest.approx(2 * (marked & mask.numpy()).sum() / (marked.sum() + mask.sum()).item())


def test_a_model_without_the_threshold_gives_nothing():
    metric = LabelMaps(lambda: torch.tensor(torch.nan), lambda: torch.ones(2), (0.01, 0.1))
    metric.update(([ROW[None]], [ROW[None] * 0], [None]))
    assert metric.compute() == {}
    with pytest.warns(UserWarning, match="no lesion"):
        assert np.isnan(computed([(ROW[None], ROW[None] * 0)])["label_dice"])
