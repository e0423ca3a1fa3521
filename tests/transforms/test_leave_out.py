"""Inference leaves out the slices that the fit left out, on the file's own grid."""

import logging

import pytest
import torch
from monai.data import MetaTensor

from dino_uad.transforms.extract_slices import ExtractSlicesd
from dino_uad.transforms.leave_out import LeaveOutSlicesd


@pytest.fixture
def volume():
    """Eight slices of 100 pixels, of which 0, 4, 5, 6, 50, 100, 5 and 0 are foreground."""
    image = torch.zeros(1, 10, 10, 8)
    for index, count in enumerate([0, 4, 5, 6, 50, 100, 5, 0]):
        image.view(100, 8)[:count, index] = 0.5
    return MetaTensor(image, meta={"filename_or_obj": "folder/p1.nii.gz"})


def scored(image):
    return image.as_tensor().flatten(0, 2).any(dim=0).nonzero().flatten().tolist()


@pytest.mark.parametrize("share", [0.0, 0.05, 0.06, 0.5])
def test_the_slices_of_the_fit_are_kept_as_they_are(volume, share):
    fitted = [item["slice_index"] for item in ExtractSlicesd("image", min_foreground=share)({"image": volume})]
    kept = LeaveOutSlicesd("image", min_foreground=share)({"image": volume})["image"]
    assert scored(kept) == [index for index in fitted if volume[..., index].any()]
    assert torch.equal(kept[..., scored(kept)].as_tensor(), volume[..., scored(kept)].as_tensor())
    assert kept.meta["filename_or_obj"] == "folder/p1.nii.gz" and torch.equal(kept.affine, volume.affine)
    assert volume[..., 1].any(), "the image given is not changed"


def test_a_preset_gives_the_range_and_its_own_share():
    brats = torch.zeros(1, 10, 20, 155)
    brats[:, 0, :2] = 1  # 1 % foreground
    kept = LeaveOutSlicesd("image", preset="brats_flair", min_foreground=0.9)({"image": MetaTensor(brats)})["image"]
    assert scored(kept) == list(range(60, 100))
    with pytest.raises(ValueError, match="no slices from 60 to 100 in a volume with 24 slices"):
        LeaveOutSlicesd("image", preset="brats_flair")({"image": MetaTensor(torch.ones(1, 4, 4, 24))})


def test_the_log_says_how_many_and_why(volume, caplog):
    with caplog.at_level(logging.INFO, "dino_uad"):
        LeaveOutSlicesd("image", min_foreground=0.05)({"image": volume})
        LeaveOutSlicesd("image")({"image": volume[..., 1:7]})
        LeaveOutSlicesd("image", min_foreground=0.9)({"image": volume[..., :2]})
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert caplog.messages[0] == (
        "p1.nii.gz: 3 of 8 slices score zero: 2 without foreground, 1 with less than 0.05 of their pixels above 0"
    )
    assert "2 of 2 slices score zero" in caplog.messages[1]


def test_an_organ_that_inference_cannot_see_is_warned_of(volume, caplog):
    LeaveOutSlicesd("image", preset="liver_ct")({"image": volume})
    assert "fitted to the inside of an organ" in caplog.text


def test_pictures_pass_and_unknown_presets_do_not():
    picture = {"image": torch.zeros(3, 10, 10)}
    assert LeaveOutSlicesd("image", min_foreground=0.5)(picture)["image"] is picture["image"]
    with pytest.raises(ValueError, match="preset is 'knee'; expected one of"):
        LeaveOutSlicesd("image", preset="knee")
