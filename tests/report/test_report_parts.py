"""The parts of the report that compute: which cases are kept, the points of curves, what pictures show."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import f1_score, precision_recall_curve, roc_curve

from dino_uad.metrics.curves import tied_levels
from dino_uad.report import panels
from dino_uad.report.collect import by_volume, volume_case
from dino_uad.report.metric_rows import interval_note
from dino_uad.report.operating_curves import MAX_POINTS, linear_histogram, operating_curve, quantile
from dino_uad.report.overview import Scale, case_captions, overview_figure
from dino_uad.report.shown_cases import Case, CaseSketch, best_median_worst, shrink
from dino_uad.report.volumes import slice_strip, three_planes


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.sampled_from(["as drawn", "rising", "falling"]))
def test_sketch_keeps_the_extremes_exactly_and_the_median_nearly(keys, order):
    keys = {"as drawn": keys, "rising": sorted(keys), "falling": sorted(keys, reverse=True)}[order]
    sketch = CaseSketch(capacity=24, extremes=2)
    for key in keys:
        sketch.add(key, key)
    ranked = sorted(keys)
    assert sketch.lowest(2) == ranked[:2]
    assert sketch.highest(2) == ranked[::-1][:2]
    wrong_by = abs(np.searchsorted(ranked, sketch.median()) - np.searchsorted(ranked, ranked[len(ranked) // 2]))
    assert wrong_by <= max(1, math.ceil(len(keys) / 10))


def test_merged_sketches_know_all_keys_and_both_extremes():
    first, second = CaseSketch(), CaseSketch()
    for i in range(60):
        (first if i % 3 else second).add(i / 60, i)
    first.merge(second)
    assert first.keys == [i / 60 for i in range(60)]
    assert first.highest(2) == [59, 58]
    assert first.lowest(2) == [0, 1]


def test_best_median_worst_shows_no_case_twice():
    sketch = CaseSketch()
    sketch.add(0.5, "only")
    assert best_median_worst(sketch, 2) == [("Best", "only")]
    for key, name in ((0.1, "low"), (0.9, "high")):
        sketch.add(key, name)
    assert best_median_worst(sketch, 1) == [("Best", "high"), ("Median", "only"), ("Worst", "low")]


def test_operating_curve_equals_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.random(500) < 0.2
    scores = np.round(rng.normal(labels, 1), 1)  # with ties
    levels = [level.numpy() for level in tied_levels(torch.from_numpy(scores), torch.from_numpy(labels))]
    curve = operating_curve(*levels, np.unique(scores))
    fpr, tpr, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rate, fpr)
    np.testing.assert_allclose(curve.true_positive_rate, tpr)
    np.testing.assert_allclose(curve.threshold, thresholds)
    precision, _, _ = precision_recall_curve(labels, scores)
    np.testing.assert_allclose(curve.precision[1:], precision[:-1][::-1][: len(curve.precision) - 1])
    for threshold in (-0.35, 0.4, 99.0):
        rates = curve.at(threshold)
        assert rates["dice"] == pytest.approx(f1_score(labels, scores >= threshold, zero_division=0.0))
        assert rates["false_positive_rate"] == pytest.approx((scores[~labels] >= threshold).mean())


def test_operating_curve_of_one_class_is_none_and_thinning_keeps_the_ends():
    assert operating_curve(np.array([3, 4]), np.zeros(2), np.array([0.0, 1.0])) is None
    count = 50_000
    curve = operating_curve(np.ones(count), np.ones(count), np.arange(count, dtype=float))
    thin = curve.thinned()
    assert len(thin.threshold) <= MAX_POINTS
    assert (thin.true_positive_rate[0], thin.true_positive_rate[-1]) == (0, 1)


def test_linear_histogram_and_quantile_equal_numpy():
    scores = np.random.default_rng(1).gamma(2.0, size=1000)
    values, counts = np.unique(scores, return_counts=True)
    edges = np.linspace(values[0], values[-1], 21)
    np.testing.assert_array_equal(linear_histogram(counts, values, edges), np.histogram(scores, edges)[0])
    assert quantile(counts, values, 0.9) == np.quantile(scores, 0.9, method="inverted_cdf")


def test_slices_of_two_volumes_with_the_same_name_are_told_apart():
    items = [{"name": "image", "scan": scan} for scan in (0, 0, 0, 1, 1, 2, 3)]
    assert [len(slices) for slices in by_volume(items)] == [3, 2, 1, 1]


def volume(slices: int = 6, spacing=(1.0, 1.0, 5.0)) -> Case:
    items = []
    for k in range(slices):
        pred, label = torch.zeros(1, 40, 50), torch.zeros(1, 40, 50, dtype=torch.uint8)
        if k == 2:
            pred[0, 10, 30], label[0, 10, 30] = 1.0, 1
        fields = {"image": torch.rand(1, 28, 28), "pred": pred, "label": label}
        items.append({**fields, "slice_index": 4 + 2 * k, "slice_number": 20 - 2 * k, "spacing": spacing})
    return volume_case("volume", items, {}, masked=True)


def test_planes_through_the_peak_have_the_proportions_of_the_body():
    case = volume()
    assert (case.first_slice, case.stride, case.spacing) == (20, -2, (1.0, 1.0, 10.0))  # a file that counts down
    (axial, axial_picture), (coronal, coronal_picture), (sagittal, sagittal_picture) = three_planes(
        case, Scale(0.1, 1.0)
    )
    assert (axial, coronal, sagittal) == ("axial, slice 16", "coronal", "sagittal")
    # 40 x 50 mm in the plane, 6 slices 10 mm apart.
    for picture, wanted in ((axial_picture, 40 / 50), (coronal_picture, 60 / 50), (sagittal_picture, 60 / 40)):
        assert picture.shape[0] / picture.shape[1] == pytest.approx(wanted, rel=0.02)
    assert len(slice_strip(case, Scale(0.1, 1.0))) == 6


def test_scale_bar_has_a_round_length_and_needs_a_spacing():
    black = np.zeros((200, 300, 3), dtype=np.uint8)
    assert panels.with_scale_bar(black, None) is black
    drawn = panels.with_scale_bar(black, 0.5)  # 150 mm wide: a bar of 50 mm, 100 pixels
    bar = (drawn[190] == 255).all(axis=-1)
    assert bar.sum() == pytest.approx(100, abs=2)


def test_map_is_transparent_below_the_scale_and_coloured_above():
    background = np.full((64, 64, 3), 90, dtype=np.uint8)
    scores = np.zeros((64, 64))
    scores[40:, 40:] = 1.0
    shown = panels.overlay_rgb(background, scores, 0.2, 1.0)
    assert (shown[:32, :32] == 90).all()
    assert (shown[50:, 50:] != 90).any(axis=-1).all()


def test_contours_lie_on_the_border_of_their_masks():
    mask = np.zeros((100, 100), dtype=bool)
    mask[20:60, 30:70] = True
    shown = panels.contours_rgb(np.zeros((100, 100, 3), dtype=np.uint8), mask, None)
    assert tuple(shown[20, 50]) == panels.TRUTH_COLOUR
    assert not shown[40, 50].any()
    assert not shown[10, 10].any()
    on_white = panels.contours_rgb(np.full((100, 100, 3), 255, dtype=np.uint8), mask, None)
    assert not on_white[19, 50].any()  # a dark seam between the line and bright tissue


def test_few_bright_pixels_do_not_darken_a_picture_and_slices_share_their_volume_s_white():
    image = np.full((100, 100), 0.3, dtype=np.float32)
    image[0, :10] = 1.0
    assert (panels.grey_rgb(image, side=100)[50:] == 255).all()
    assert (panels.grey_rgb(image, side=100, white=0.6)[50:] == 128).all()
    assert not panels.grey_rgb(np.zeros((10, 10)), side=10).any()


@pytest.mark.parametrize(
    ("label", "threshold", "expected"),
    [
        (torch.eye(2) > 0, 0.5, "annotation (blue), prediction (orange)"),
        (torch.eye(2) > 0, 2.0, "annotation (blue), nothing predicted"),
        (torch.eye(2) < 0, 0.5, "nothing annotated, prediction (orange)"),
        (None, None, "no annotation"),
    ],
)
def test_captions_say_what_is_seen(label, threshold, expected):
    case = Case("a", torch.rand(1, 2, 2), torch.ones(2, 2), label, {})
    assert case_captions(case, Scale(0.0, 1.0, threshold))[2] == expected


def test_shrink_averages_and_leaves_small_maps_alone():
    large = torch.arange(16.0).reshape(1, 4, 4)
    torch.testing.assert_close(shrink(large, 2), torch.tensor([[[2.5, 4.5], [10.5, 12.5]]]))
    assert shrink(large, 4) is large


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 5)])
def test_overview_figure_of_an_image_and_of_a_volume(tmp_path, shape):
    rng = np.random.default_rng(0)
    image, scores = rng.random((1, *shape), dtype=np.float32), rng.random((1, *shape), dtype=np.float32)
    overview_figure(image, scores, scores > 0.9, tmp_path / "overview.png", threshold=0.8, spacing=(1.0, 1.0))
    with Image.open(tmp_path / "overview.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > 2 * picture.height  # three pictures of 60 x 40 side by side
    overview_figure(image, scores, None, tmp_path / "bare.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.png", "overview.png"]


def test_intervals_of_few_patients_are_said_to_be_too_narrow():
    assert interval_note(34, True).endswith("where names do not tell).")
    assert "too narrow" in interval_note(12, True) and "12 groups" in interval_note(12, True)
    assert interval_note(12, False) == ""
