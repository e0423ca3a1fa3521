"""The forms in which maps leave: for the MONAI Label server."""

import pytest
import torch
from monai.data import MetaTensor

from dino_uad.transforms.served_map import ServedMapd


def served(image):
    return ServedMapd("pred")({"pred": image})["pred"]


def test_volumes_and_label_maps_keep_their_values():
    volume = MetaTensor(torch.rand(1, 5, 4, 3), affine=torch.diag(torch.tensor([2.0, 3, 4, 1])))
    assert torch.equal(served(volume), volume[0]) and torch.equal(served(volume).affine, volume.affine)
    label = MetaTensor((torch.rand(1, 5, 4) > 0.5).to(torch.uint8))
    assert torch.equal(served(label), label[0])


def test_anomaly_map_of_a_picture_fits_a_png():
    result = served(MetaTensor(torch.tensor([[[-1.0, 0.0], [1.0, 3.0]]])))
    assert result.dtype == torch.uint8 and result.tolist() == [[0, 64], [128, 255]]
    assert served(MetaTensor(torch.ones(1, 2, 2))).tolist() == [[0, 0], [0, 0]]


def test_a_scan_of_which_nothing_was_scored_is_not_served_as_an_empty_label():
    item = {"pred": MetaTensor(torch.zeros(1, 5, 4, 3)), "scan": {"image_score": None, "slices_scored": 0}}
    assert ServedMapd("pred")(item)["pred"].sum() == 0  # in a run, whose worklist lists it as failed
    with pytest.raises(ValueError, match=r"p1\.nii\.gz: no slice has enough foreground to be scored"):
        ServedMapd("pred")(item | {"image_path": "/studies/p1.nii.gz"})
