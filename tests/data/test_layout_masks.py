"""Which files are masks by their names, and which belong together."""

import re
from pathlib import Path

import layouts
import pytest
from understood_cases import anomalous, facts, understood

MASK_NAMES = (
    *("x{}_mask.png", "x{}-mask.png", "x{}.mask.png", "x{}_mask_1.png", "x{}_Mask.png", "x{}Mask.png", "mask_x{}.png"),
    *("x{}_GT.png", "x{}_annotation.png", "x{}_roi.png", "x{}_manual1.png", "x{}_segm.png", "x{}_segmentation.png"),
    *("x{}_lesion_mask.png", "x{}_mask_final.png", "seg_x{}.png", "x{}_maske.png", "x{}_masque.png", "x{}_label.tif"),
    *("x{}_mask.jpg", "masks/x{}.png", "labels/x{}_gt.png", "1st_manual/x{}_manual1.png", "ground_truth/x{}.png"),
    *("annotations/x{}.png", "x{}_zeichnung.png", "x{}_desenho.png", "drawn/x{}.png"),
)


@pytest.mark.parametrize("name", MASK_NAMES)
def test_masks_by_many_names_are_masks(tmp_path, name):
    """A few are told by their two values alone; a name that is understood but fits no image would be an error."""
    images = [f"{'scans/' if '/' in name else ''}x{k}.png" for k in range(1, 6)]
    masks = [f"{name.format(k)} = mask" for k in (1, 2)]
    cases = understood(tmp_path, *images, *masks)
    assert facts(cases)[:2] == ((3, 2), 2)
    assert anomalous(cases) == set(images[:2])


VOLUME_MASKS = (
    *("p{}_seg", "p{}.seg", "p{}-label", "p{}_dseg", "p{}_labelmap", "p{}-LesionSeg", "p{}_consensus_gt"),
    *("labels/p{}", "Segmentation/p{}"),
)


@pytest.mark.parametrize("name", VOLUME_MASKS)
def test_masks_of_volumes(tmp_path, name):
    files = [f"p{k}_flair.nii.gz" for k in range(1, 6)] + [f"{name.format(k)}.nii.gz = mask" for k in (1, 2)]
    assert anomalous(understood(tmp_path, *files)) == {"p1_flair.nii.gz", "p2_flair.nii.gz"}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("c{}/imaging.nii.gz", "c{}/segmentation.nii.gz"),
        ("c{}/FLAIR.nii.gz", "c{}/wmh.nii.gz"),
        ("img/img000{}.nii.gz", "label/label000{}.nii.gz"),
        ("ISIC_Training_Input/I_{}.jpg", "ISIC_Training_GroundTruth/I_{}_segmentation.png"),
        (
            "R001/sub-r{}/anat/sub-r{}_space-MNI_T1w.nii.gz",
            "R001/sub-r{}/anat/sub-r{}_space-MNI_label-L_desc-T1lesion_mask.nii.gz",
        ),
        ("rawdata/sub-s{}/sub-s{}_dwi.nii.gz", "derivatives/sub-s{}/sub-s{}_msk.nii.gz"),
        ("ct_scans/v_{}.nii.gz", "Infection_Mask/v_{}.nii.gz"),
    ],
)
def test_images_and_masks_with_names_of_their_own(tmp_path, image, mask):
    files = [name.format(k, k) for k in range(1, 5) for name in (image, f"{mask} = mask")]
    if image.endswith("jpg"):
        files += [f"ISIC_Training_Input/I_{k}.jpg" for k in range(5, 9)]
    cases = understood(tmp_path, *files)
    assert anomalous(cases) == {image.format(k, k) for k in range(1, 5)}


@pytest.mark.parametrize(
    "name",
    [
        "x{}_brain_mask.png",
        "x{}_lungmask.png",
        "Disc_Cup_Masks/x{}.png",
        "x{}_aparc+aseg.png",
        "predicted_masks/x{}.png",
    ],
)
def test_masks_of_organs_and_predictions_are_asked_for(tmp_path, name):
    files = [f"x{k}.png" for k in range(1, 6)] + [f"{name.format(k)} = mask" for k in (1, 2)]
    with pytest.raises(
        ValueError, match=r"2 of 2 masks are called after organs or predictions .*mask_pattern '\*(\w+)\*'; .*none"
    ) as error:
        understood(tmp_path, *files)
    marked = understood(tmp_path, mask_pattern=re.search(r"'(\*\w+\*)'", str(error.value))[1])
    assert anomalous(marked) == set(files[:2])
    assert not anomalous(understood(tmp_path, mask_pattern="none"))


def test_masks_that_mark_normal_images_are_asked_for(tmp_path):
    files = [
        f"{name}/{place}/{k}.png{what}"
        for name in ("Normal", "COVID")
        for k in range(4)
        for place, what in (("images", ""), ("masks", " = mask"))
    ]
    with pytest.raises(
        ValueError, match=r"4 images are normal by their folders.*Normal/images/0\.png.*mask_pattern none"
    ):
        understood(tmp_path, *files)
    assert len(anomalous(understood(tmp_path, mask_pattern="none"))) == 4


def test_accents_count_the_same_composed_and_apart(tmp_path):
    files = [f"caf\u00e9{k}.png" for k in range(4)] + ["cafe\u03010_mask.png = mask"]
    assert anomalous(understood(tmp_path, *files)) == {files[0]}


def test_one_bare_mask_of_several_volumes_is_that_of_the_chosen_one(tmp_path):
    files = [f"c{k}/{name}" for k in range(4) for name in ("PET.nii.gz", "anatomy.nii.gz", "SEG.nii.gz = mask")]
    assert len(anomalous(understood(tmp_path, *files, pattern="*PET*"))) == 4


def test_the_mask_of_a_case_goes_with_the_sequence_that_a_pattern_chose(tmp_path):
    """As ISLES 2022 lies on disk: the masks are a folder higher, below derivatives."""
    images = [f"I/sub-s{k}/ses-1/dwi/sub-s{k}_ses-1_{name}.nii.gz" for k in range(4) for name in ("adc", "dwi")]
    masks = [f"I/derivatives/sub-s{k}/ses-1/sub-s{k}_ses-1_msk.nii.gz = mask" for k in range(4)]
    assert anomalous(understood(tmp_path, *images, *masks, pattern="*_dwi*")) == set(images[1::2])


def test_one_mask_that_fits_no_image_is_an_error_though_others_fit(tmp_path):
    files = [f"p{k}.png" for k in range(4)] + ["p0_mask.png = mask", "p1_mask.png = mask", "q9_mask.png = mask"]
    with pytest.raises(ValueError, match=r"1 of 3 masks \(such as q9_mask.png: the name says mask\) go with no image"):
        understood(tmp_path, *files)


@pytest.mark.parametrize(
    "name",
    [
        *("x1_mask.gif", "masks/x1.gif", "masks/x1.npy", "x1_seg.mat", "labels/x1.txt", "Annotations/x1.xml"),
        *("masks/x1.jfif", "x1_seg.nii.bz2", "x1_lesion_mask.mif.gz", "x1.OVERLAY", "x1.seg", "labels/x1.pkl"),
    ],
)
def test_masks_in_a_format_that_is_not_read_are_named(tmp_path, name):
    files = [f"x{k}.png" for k in range(4)]
    with pytest.raises(ValueError, match=rf"{name.split('.')[-1]}.*this format is not read.*Convert"):
        understood(tmp_path, *files, f"{name} = mask")


@pytest.mark.parametrize(
    "name", ["masks/README.md", "masks/x1.log", "masks/Thumbs.db", "x1_mask.json", "masks/palette.act", "masks/LICENSE"]
)
def test_notes_and_side_files_of_masks_are_no_masks(tmp_path, name):
    files = [f"x{k}.png" for k in range(4)] + ["x1_mask.png = mask"]
    assert anomalous(understood(tmp_path, *files, f"{name} = text x")) == {"x1.png"}


def test_a_sequence_and_its_mask_in_a_format_that_is_not_read(tmp_path):
    files = [f"p{k}/{name}" for k in range(4) for name in ("T1.nii.gz", "seg.mif = text x")]
    with pytest.raises(ValueError, match=r"p0/seg\.mif.*this format is not read"):
        understood(tmp_path, *files)


def test_a_pattern_of_masks_that_cannot_be_read_is_an_error(tmp_path):
    files = [f"x{k}.png" for k in range(4)] + ["x1_drawn.bin = text x", "drawn.csv = text a"]
    with pytest.raises(ValueError, match=r"x1_drawn\.bin: it matches mask_pattern.*not read"):
        understood(tmp_path, *files, mask_pattern="*drawn*")
    with pytest.raises(ValueError, match=r"mask_pattern is '\*\.csv', which matches no file"):
        understood(tmp_path, mask_pattern="*.csv")


def test_images_that_look_like_masks_are_asked_for_and_may_be_declared(tmp_path):
    files = [f"a{k}.png = mask" for k in range(5)]
    with pytest.raises(ValueError, match=r"5 images have as few values as a mask .*image_pattern"):
        understood(tmp_path, *files)
    assert facts(understood(tmp_path, image_pattern="*"))[0] == (5, 0)


def test_a_patient_called_mask_is_asked_for_and_may_be_declared(tmp_path):
    files = [f"{patient}/slice_{k}.png" for patient in ("p1", "p2", "p3", "mask") for k in range(4)]
    with pytest.raises(ValueError, match=r"4 of 4 masks .*mask/slice_0.png.*image_pattern"):
        understood(tmp_path, *files)
    cases = understood(tmp_path, image_pattern="mask/*")
    assert len(cases) == 16 and not anomalous(cases)


PARTS = {
    "BUSI": ("x{}_mask.png", "x{}_mask_1.png", "x{}_mask_2.png"),
    "lesions": ("x{}_lesion1.png", "x{}_lesion2.png"),
    "sides": ("masks/x{}_left.png", "masks/x{}_right.png"),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_one_annotation_are_joined(tmp_path, name):
    from dino_uad.data import datalist
    from dino_uad.transforms import LoadScand

    layouts.write(tmp_path, [f"x{k}.png" for k in range(5)])
    for place, part in enumerate(PARTS[name]):
        layouts.write(tmp_path, [f"{part.format(0)} = mask {5 * place}"])
    (item,) = (item for item in datalist(tmp_path, "test") if item["anomalous"])
    assert sorted(Path(path).name for path in item["label"]) == sorted(Path(p.format(0)).name for p in PARTS[name])
    label = LoadScand(["image", "label"])(item)["label"]
    assert int((label > 0).sum()) == 25 * len(PARTS[name])  # squares of 5 pixels that do not touch


DIFFERENT = {
    "CHASE": ("x{}_1stHO.png", "x{}_2ndHO.png"),
    "DRIVE": ("1st_manual/x{}_manual1.png", "2nd_manual/x{}_manual2.png"),
    "COVID-QU": ("lung masks/x{}.png", "infection masks/x{}.png"),
    "tissues": ("x{}_core_mask.png", "x{}_whole_mask.png"),
    "two readers who only count": ("x{}_mask1.png", "x{}_mask2.png"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_masks_that_say_different_things_are_listed_and_chosen(tmp_path, name):
    masks = [mask.format(k) for k in range(2) for mask in DIFFERENT[name]]
    layouts.write(tmp_path, [f"images/x{k}.png" for k in range(5)] + [f"{mask} = mask" for mask in masks])
    with pytest.raises(ValueError, match=r"several masks for images/x0\.png: .*mask_pattern '([^']*)', or") as error:
        understood(tmp_path)
    assert all(mask in str(error.value) for mask in masks[:2])
    one, both = re.findall(r"'([^']*\*[^']*)'", str(error.value))
    for pattern, count in ((one, 1), (both, 2)):
        cases = understood(tmp_path, mask_pattern=pattern)
        assert [len(case.labels) for case in cases] == [count, count, 0, 0, 0]
