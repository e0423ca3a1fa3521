"""The free-response curve against a count by hand, and against one threshold after the other."""

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, label

from dino_uad.metrics import FALSE_FINDINGS, FROC


def scan(*spots, shape=(32, 32)):
    """A map with single bright pixels, and the mask of those whose third number is 1."""
    scores, mask = torch.zeros(1, *shape), torch.zeros(1, *shape, dtype=torch.uint8)
    for row, column, lesion, value in spots:
        scores[0, row, column], mask[0, row, column] = value, lesion
    return scores, mask


def computed(metric, pairs, scans=None):
    maps, masks = zip(*pairs, strict=True)
    metric.reset()
    metric.update((list(maps), list(masks), scans or range(len(maps))))
    return metric.compute()


def test_counts_by_hand():
    pairs = [
        scan((4, 4, 1, 0.9), (20, 20, 0, 0.8)),
        scan((4, 4, 1, 0.5), (20, 20, 1, 0.1)),
        scan((10, 10, 0, 0.6), (25, 5, 0, 0.3)),
        scan((10, 10, 0, 0.2)),
    ]
    found = computed(FROC(threshold=0.55), pairs)
    # False findings 0.8, 0.6, 0.3, 0.2 in four scans; lesions 0.9, 0.5, 0.1.
    assert found["lesion_sensitivity_at_0.1"] == pytest.approx(1 / 3)  # above 0.8
    assert found["lesion_sensitivity_at_0.25"] == pytest.approx(1 / 3)  # above 0.6
    assert found["lesion_sensitivity_at_0.5"] == pytest.approx(2 / 3)  # above 0.3
    assert found["lesion_sensitivity_at_1"] == 1
    assert found["froc"] == pytest.approx((1 / 3 + 2 / 3 + 4) / 6)
    assert found["lesion_sensitivity"] == pytest.approx(1 / 3)
    assert found["false_findings_per_normal_scan"] == 0.5


def slow_candidates(scores, reach):
    """By the definition, voxel by voxel: lists of voxels of equal scores that nothing higher is near."""
    voxels = list(np.ndindex(scores.shape))

    sides = [[range(n)[around(i, r)] for i in range(n)] for n, r in zip(scores.shape, (1, reach, reach), strict=True)]
    near = {v: list(itertools.product(*(side[i] for side, i in zip(sides, v, strict=True)))) for v in voxels}
    found, seen = [], set()
    for start in voxels:
        if start in seen:
            continue
        group, todo = {start}, [start]
        while todo:
            new = {u for u in near[todo.pop()] if scores[u] == scores[start]} - group
            group |= new
            todo += new
        seen |= group
        if not any(scores[u] > scores[start] for v in group for u in near[v]) and len(group) < scores.size:
            found.append(sorted(group))
    return found


def around(place, reach):
    return slice(max(place - reach, 0), place + reach + 1)


def slow_curve(pairs):
    """Sensitivity at each rate by one threshold after the other."""
    counted = []
    for scores, mask in pairs:
        scores, mask = scores.numpy(), mask.numpy() > 0
        reach = max(1, max(scores.shape[1:]) // 16) | 1
        regions, lesions = label(mask, np.ones((3, 3, 3)))
        marks = []
        for group in slow_candidates(scores, reach):
            hits = {n for z, y, x in group for n in regions[z, around(y, reach // 2), around(x, reach // 2)].flat}
            marks.append((scores[group[0]], hits - {0}))
        counted.append((marks, lesions))
    best = dict.fromkeys(FALSE_FINDINGS, 0.0)
    for level in sorted({score for marks, _ in counted for score, _ in marks}):
        false = sum(not hits for marks, _ in counted for score, hits in marks if score >= level)
        hit = sum(len({n for score, hits in marks if score >= level for n in hits}) for marks, _ in counted)
        for rate in FALSE_FINDINGS:
            if false <= rate * len(pairs):
                best[rate] = max(best[rate], hit / sum(lesions for _, lesions in counted))
    return best


@pytest.mark.parametrize("step", [1e-6, 0.02, 0.1])
def test_the_curve_is_that_of_one_threshold_after_the_other(step):
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(10):
        scores = gaussian_filter(rng.normal(size=(2, 40, 34)), (0.5, 2, 2))
        mask = gaussian_filter(rng.normal(size=(2, 40, 34)), (0.5, 3, 3)) > 0.14
        scores = np.round((scores + 0.15 * mask) / step) * step  # the larger, the more plateaus
        pairs.append((torch.tensor(scores, dtype=torch.float32), torch.from_numpy(mask)))
    slices = [(s[None], m[None]) for scores, mask in pairs for s, m in zip(scores, mask, strict=True)]
    found = computed(FROC(), slices, [str(i // 2) for i in range(20)])
    expected = slow_curve(pairs)
    assert [found[f"lesion_sensitivity_at_{rate:g}"] for rate in FALSE_FINDINGS] == pytest.approx([*expected.values()])
    assert 0 <= expected[0.1] < expected[2.0] < expected[8.0] <= 1


def discs(count=40, side=128, seed=0):
    """A mask with one disc somewhere, and its centre."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    for _ in range(count):
        y, x = rng.integers(12, side - 12, 2)
        yield np.hypot(rows - y, columns - x) <= 7, (y, x)


def knowing_nothing(kind, side=128):
    rows, columns = np.mgrid[:side, :side].astype(float)
    return {"constant": 0 * rows, "ramp": rows + 0.01 * columns, "centre": -np.hypot(rows - 63, columns - 63)}[kind]


@pytest.mark.parametrize(("kind", "at_most"), [("constant", 0.0), ("ramp", 0.0), ("centre", 0.1)])
def test_a_map_that_knows_nothing_finds_nothing(kind, at_most):
    pairs = [(torch.tensor(knowing_nothing(kind))[None], torch.from_numpy(mask)[None]) for mask, _ in discs()]
    found = computed(FROC(threshold=-1e9), pairs)
    assert found["froc"] <= at_most and found["lesion_sensitivity_at_8"] <= at_most
    assert found["lesion_sensitivity"] <= at_most, "not at any threshold either"


def test_random_maps_find_as_many_lesions_as_random_places_hit():
    rng, pairs = np.random.default_rng(1), []
    for mask, _ in discs(200):
        pairs.append(
            (torch.tensor(gaussian_filter(rng.normal(size=mask.shape), 3))[None], torch.from_numpy(mask)[None])
        )
    found = computed(FROC(), pairs)
    # A disc of radius 7 and half a reach of 4 around it are 400 of 16 384 pixels.
    assert found["lesion_sensitivity_at_1"] == pytest.approx(400 / 16384, abs=0.03)
    assert found["lesion_sensitivity_at_8"] == pytest.approx(1 - (1 - 400 / 16384) ** 8, abs=0.08)


def test_the_flank_of_a_found_lesion_is_not_a_false_finding():
    # A blob of thrice the lesion's size on every lesion, noise that is far lower elsewhere.
    rng, pairs = np.random.default_rng(0), []
    for mask, (y, x) in discs():
        rows, columns = np.mgrid[:128, :128]
        blob = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 15**2))
        noise = 0.2 * gaussian_filter(rng.normal(size=mask.shape), 3)
        pairs.append((torch.tensor(blob + noise)[None], torch.from_numpy(mask)[None]))
    assert computed(FROC(), pairs)["lesion_sensitivity_at_0.1"] == 1


@pytest.mark.parametrize("side", [224, 250, 256])
def test_a_peak_or_a_plateau_counts_once_wherever_it_lies(side):
    empty = torch.zeros(1, side, side, dtype=torch.uint8)
    rng = np.random.default_rng(0)
    for _ in range(10):
        spot = np.zeros((side, side))
        spot[tuple(rng.integers(0, side, 2))] = 1
        peak = gaussian_filter(spot, side / 40)
        plateau = (peak > peak.max() / 2).astype(float)
        for scores in (peak, plateau, plateau[:, ::-1].copy()):
            metric = FROC()
            metric.update(([torch.tensor(scores)[None]], [empty], [None]))
            assert len(metric._false[0]) == 1


@pytest.mark.parametrize("step", [0.05, 0.3])
def test_turning_all_maps_changes_nothing_even_with_plateaus(step):
    rng = np.random.default_rng(2)
    pairs = []
    for mask, _ in discs(20):
        scores = np.round((gaussian_filter(rng.normal(size=mask.shape), 3) + 0.2 * mask) / step) * step
        pairs.append((torch.tensor(scores)[None], torch.from_numpy(mask)[None]))
    turned = [(s.rot90(dims=(1, 2)).flip(1), m.rot90(dims=(1, 2)).flip(1)) for s, m in pairs]
    assert computed(FROC(), turned) == computed(FROC(), pairs)


def test_slices_of_a_volume_are_one_scan():
    lesion = scan((4, 4, 1, 0.9))
    false = scan((20, 20, 0, 0.5))
    apart = computed(FROC(threshold=0.2), [lesion, false, false])
    together = computed(FROC(threshold=0.2), [lesion, false, false], [7, 7, 7])
    assert apart["false_findings_per_normal_scan"] == 1
    assert together["lesion_sensitivity_at_1"] == 1 and np.isnan(together["false_findings_per_normal_scan"])


def test_without_lesions_nothing_is_made_up():
    with pytest.warns(UserWarning, match="no lesion"):
        found = computed(FROC(), [scan((1, 1, 0, 0.5))])
    assert np.isnan(found["froc"]) and "lesion_sensitivity" not in found
    with pytest.raises(ValueError, match="NaN or Inf"):
        computed(FROC(), [(torch.full((1, 4, 4), torch.nan), torch.zeros(1, 4, 4))])
