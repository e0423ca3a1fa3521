"""Which slices a volume gives."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from dino_uad.transforms import FillLabeld
from dino_uad.transforms.extract_slices import ExtractSlicesd


@pytest.fixture
def case():
    image, label = torch.zeros(1, 10, 10, 8), torch.zeros(1, 10, 10, 8)
    image[..., 2:] = 0.5
    image[0, :2, :2, 1] = 0.5  # 4 % foreground
    label[0, 4, 4, 5:7] = 1
    return {"image": MetaTensor(image, meta={"filename_or_obj": "p1.nii"}), "label": MetaTensor(label), "group": "p1"}


def indices(slices):
    return [item["slice_index"] for item in slices]


def test_range_stride_foreground_and_anomalies(case):
    assert indices(ExtractSlicesd()(case)) == list(range(8))
    assert indices(ExtractSlicesd(start=1, stop=7, stride=2)(case)) == [1, 3, 5]
    assert indices(ExtractSlicesd(min_foreground=0.1)(case)) == [2, 3, 4, 5, 6, 7]
    assert indices(ExtractSlicesd(min_foreground=0.01, drop_anomalous=True)(case)) == [1, 2, 3, 4, 7]


def test_slices_keep_source_group_and_label(case):
    item = ExtractSlicesd()(case)[5]
    assert item["group"] == "p1" and item["image"].meta["filename_or_obj"] == "p1.nii"
    assert item["image"].shape == (1, 10, 10) and int(item["label"].sum()) == 1


def test_picture_is_a_list_of_one(case):
    picture = {"image": torch.rand(3, 10, 10)}
    assert indices(ExtractSlicesd(drop_anomalous=True)(picture)) == [None]


def test_annotated_picture_is_no_normal_image():
    picture = {"image": torch.rand(3, 10, 10), "label": torch.zeros(1, 10, 10)}
    assert indices(ExtractSlicesd(drop_anomalous=True)(picture)) == [None]
    picture["label"][0, 4, 4] = 1 / 255
    assert indices(ExtractSlicesd(drop_anomalous=True)(picture)) == []
    assert indices(ExtractSlicesd()(picture)) == [None]


def test_brats_preset_is_slices_60_to_99():
    brats = {"image": MetaTensor(torch.ones(1, 4, 4, 155))}
    assert indices(ExtractSlicesd(preset="brats_flair")(brats)) == list(range(60, 100))
    with pytest.raises(ValueError, match="24 slices"):
        ExtractSlicesd(preset="brats_flair")({"image": MetaTensor(torch.ones(1, 4, 4, 24))})


def test_liver_preset_masks_the_organ_and_flattens_its_histogram():
    image, label = torch.rand(1, 40, 40, 2) ** 1.5 / 2, torch.zeros(1, 40, 40, 2)
    label[0, 5:35, 5:35] = 1
    label[0, 10:14, 10:14, 1] = 2
    slices = ExtractSlicesd(preset="liver_ct")({"image": MetaTensor(image), "label": MetaTensor(label)})
    organ = slices[0]["image"][0, 5:35, 5:35].flatten()
    assert float(slices[0]["image"][0, :5].abs().sum()) == 0
    np.testing.assert_allclose(organ.quantile(torch.tensor([0.25, 0.5, 0.75])), [0.25, 0.5, 0.75], atol=0.05)
    assert int(slices[0]["label"].sum()) == 0 and int(slices[1]["label"].sum()) == 16
    with pytest.raises(ValueError, match="organ"):
        ExtractSlicesd(preset="liver_ct")({"image": MetaTensor(image)})
    with pytest.raises(ValueError, match="FillLabeld after"):
        ExtractSlicesd(preset="liver_ct")(FillLabeld("label")({"image": MetaTensor(image), "label": MetaTensor(label)}))


def test_label_of_another_size_is_refused(case):
    case["label"] = torch.zeros(1, 9, 10, 8)
    with pytest.raises(ValueError, match=r"\(9, 10, 8\).*\(10, 10, 8\)"):
        ExtractSlicesd()(case)


@pytest.mark.parametrize("options", [{"preset": "knee"}, {"stride": 0}, {"axis": 3}])
def test_wrong_options(options):
    with pytest.raises(ValueError, match="expected"):
        ExtractSlicesd(**options)
