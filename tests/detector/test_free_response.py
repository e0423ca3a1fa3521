"""The free-response threshold against counts of connected components, and its promise by simulation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from scipy.ndimage import gaussian_filter, label

from dino_uad.detector import FREE_RESPONSE, NormalScans
from dino_uad.detector.free_response import finding_peaks, threshold_at_findings


@given(arrays.arrays(np.float32, (4, 6, 5), elements=st.integers(0, 5).map(float)))
def test_there_are_at_least_as_many_peaks_as_findings_at_every_threshold(maps) -> None:
    peaks = finding_peaks(torch.from_numpy(maps))
    for threshold in range(6):
        assert (peaks >= threshold).sum() >= label(maps >= threshold, np.ones((3, 3, 3)))[1]


def test_a_smooth_bump_has_one_peak() -> None:
    maps = np.zeros((9, 20, 20), dtype=np.float32)
    maps[4, 6, 7], maps[5, 15, 12] = 100, 50
    peaks = finding_peaks(torch.from_numpy(gaussian_filter(maps, 1.0, mode="constant")))
    assert (peaks > 1e-3).sum() == 2


def test_the_threshold_leaves_the_allowed_number_of_peaks() -> None:
    peaks = [torch.tensor([float(scan), scan - 0.5]) for scan in range(39)]
    threshold = threshold_at_findings(peaks, 0.1)  # (3 + 1) / 40
    assert sum(int((scan >= threshold).sum()) for scan in peaks) == 3
    assert threshold == pytest.approx(36.5, abs=1e-4) and threshold > 36.5  # 38, 37.5 and 37 reach it
    once = threshold_at_findings([scan[:1] for scan in peaks], 0.1)
    assert sum(bool((scan >= once).any()) for scan in peaks) == 3 and once > 35  # 38, 37 and 36 reach it
    few = threshold_at_findings(peaks[:5], 0.1)
    assert all((scan < few).all() for scan in peaks[:5])
    with pytest.raises(ValueError, match="no normal scan"):
        threshold_at_findings([], 0.1)


@pytest.mark.parametrize("rate", [0.1, 0.25])
def test_at_most_that_share_of_normal_scans_has_a_finding_over_1000_splits(rate) -> None:
    rng, flagged = np.random.default_rng(0), 0
    for _ in range(1000):
        scans = [torch.from_numpy(rng.gumbel(size=6) + rng.normal()) for _ in range(30)]
        flagged += bool((scans[0].float() >= threshold_at_findings(scans[1:], rate)).any())
    assert stats.binomtest(flagged, 1000, rate, alternative="greater").pvalue > 0.01
    assert flagged > 20


@pytest.mark.parametrize(("point", "rate"), FREE_RESPONSE.items())
def test_what_cannot_be_promised_is_said_up_to_the_scan_from_which_on_it_can(point, rate) -> None:
    for count, said in ((round(1 / rate) - 2, 1), (round(1 / rate) - 1, 0)):
        normal = NormalScans()
        normal.fit(torch.rand(count), range(count), torch.rand(count, 4, 4), range(count))
        assert sum(f"have a finding ({point})" in line for line in normal.promises()) == said, count


@pytest.mark.parametrize("volumes", [False, True])
def test_no_more_findings_than_allowed_in_calibration_scans_of_several_files(volumes) -> None:
    # 29 patients of 3 neighbouring slices, which look alike, as volumes or as pictures; one finding in 10 of 30 scans.
    rng = np.random.default_rng(0)
    maps = (rng.gumbel(size=(29, 1, 6, 6)) + 0.1 * rng.normal(size=(29, 3, 6, 6))).astype(np.float32)
    groups = np.repeat(np.arange(29), 3).tolist()
    scans = groups if volumes else list(range(87))
    normal, flat = NormalScans(), torch.from_numpy(maps).flatten(0, 1)
    normal.fit(flat.amax(dim=(1, 2)), groups, flat, scans)
    seen = maps >= normal.free_response()["1 finding in 10 scans"]
    files = seen if volumes else seen.reshape(87, 1, 6, 6)
    findings = [label(one, np.ones((3, 3, 3)))[1] for one in files]
    assert 0 < sum(findings) <= 2
    once = maps >= normal.free_response()["1 in 4 normal scans"]
    assert once.any(axis=(1, 2, 3)).sum() == 6  # of 29, (6 + 1) / 30 < 1 / 4
