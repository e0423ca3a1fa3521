"""A folder of masks that bears an image's name decides whose they are, whatever the files in it are called."""

import layouts
import pytest
from understood_cases import anomalous, understood

NUMBERS = [f"images/{k:03d}.png" for k in range(10)]
FOLDERS = {
    "numbers that are images' too": (NUMBERS, "masks/005/000.png", "images/005.png"),
    "a word": ([f"images/case00{k}.png" for k in range(6)], "masks/case005/mask.png", "images/case005.png"),
    "a folder called as images are": (
        [f"images/img_00{k}.png" for k in range(6)],
        "masks/img_005/0.png",
        "images/img_005.png",
    ),
    "names": (NUMBERS, "masks/005/lesion_1.png", "images/005.png"),
    "deeper": (NUMBERS, "masks/005/lesions/1.png", "images/005.png"),
    "called mask": (NUMBERS, "005_mask/000.png", "images/005.png"),
    "volumes": ([f"ct/v{k}.nii.gz" for k in range(4)], "ct/masks/v2/v1.nii.gz", "ct/v2.nii.gz"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_bears_an_images_name_decides(tmp_path, name):
    images, mask, owner = FOLDERS[name]
    cases = understood(tmp_path, *images, f"{mask} = mask")
    assert {c.image.relative: [m.relative_to(tmp_path).as_posix() for m in c.labels] for c in cases if c.labels} == {
        owner: [mask]
    }


def test_all_files_in_it_are_parts_of_one_mask(tmp_path):
    parts = [f"masks/{k}/00{n}.png = mask {5 * n}" for k in ("005", "006") for n in (0, 1)]
    cases = understood(tmp_path, *NUMBERS, *parts)
    assert {c.image.path.stem: len(c.labels) for c in cases if c.labels} == {"005": 2, "006": 2}


def test_mvtec_loco(tmp_path):
    files = [f"{place}/00{k}.png" for place in ("train/good", "test/good", "test/logical_anomalies") for k in range(4)]
    masks = [f"ground_truth/logical_anomalies/00{k}/000.png = mask" for k in range(4)]
    cases = understood(tmp_path, *files, *masks)
    assert anomalous(cases) == set(files[-4:])
    assert all(c.labels[0].parent.name == c.image.path.stem for c in cases if c.labels)


def test_a_folder_whose_image_is_missing_goes_with_no_other(tmp_path):
    with pytest.raises(ValueError, match=r"1 of 2 masks \(such as masks/016/000\.png.*go with no image"):
        understood(tmp_path, *NUMBERS, "masks/005/000.png = mask", "masks/016/000.png = mask")


def test_readers_who_are_called_as_images_are_asked_for(tmp_path):
    layouts.write(tmp_path, [*NUMBERS, *(f"masks/00{r}/00{k}.png = mask" for r in range(2) for k in range(8))])
    with pytest.raises(ValueError, match=r"folder and the masks in it are called after images.*Rename the folder"):
        understood(tmp_path)


def test_a_folder_within_that_of_its_own_images_is_none(tmp_path):
    files = [f"{k}.png" for k in range(4)] + [f"1/{k}.png" for k in range(4)] + ["1/masks/2.png = mask"]
    assert anomalous(understood(tmp_path, *files)) == {"1/2.png"}
