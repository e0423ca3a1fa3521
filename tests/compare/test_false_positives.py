"""Shares of normal test images that are marked, counted by hand."""

from types import SimpleNamespace

import pytest
import torch

from dino_uad.compare.false_positives import KINDS, FalsePositives, averaged, name
from dino_uad.detector import FALSE_POSITIVE_RATES


def item(pred, foreground, anomalous=False):
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = anomalous
    return {"pred": pred, "foreground": foreground, "mask": mask, "label": mask, "has_mask": True}


def test_each_kind_by_its_own_threshold():
    count = len(FALSE_POSITIVE_RATES)
    network = SimpleNamespace(
        inside=lambda foreground: foreground.repeat_interleave(2, 2).repeat_interleave(2, 3),
        thresholds=torch.full((count,), 3.0),
        pixel_thresholds=torch.full((count,), 2.0),
    )
    left = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    first, second = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    first[0, 0] = 3.0  # two of eight pixels of the foreground, four of sixteen in all
    second[0, :, 3] = 2.0  # none of the foreground
    found = FalsePositives(network)
    found.add([item(first, left), item(torch.full((1, 4, 4), 9.0), left, anomalous=True)])
    found.add([item(second, left)])
    result = found.result()
    assert len(result) == len(KINDS) * count
    shares = {kind: result[name(0.05, kind)] for kind in KINDS}
    assert shares == pytest.approx({"foreground": 2 / 16, "worst": 2 / 8, "pixels": 8 / 32, "worst pixels": 4 / 16})
    assert averaged([{"false_positives": result}, {"false_positives": dict.fromkeys(result, 0)}, {}])[
        name(0.05, "worst")
    ] == pytest.approx(1 / 8)
    assert FalsePositives(network).result() == {}
