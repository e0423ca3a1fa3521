"""Pictures that say that they are to be turned when they are shown, and masks that were drawn on what is shown."""

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from dino_uad.data.verify import check_sizes

SUFFIXES = ["jpg", "tif", "png"]


def write(path, size, turn=1):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8))
    tags = picture.getexif()
    tags[ExifTags.Base.Orientation] = turn
    picture.save(path, exif=tags)
    return str(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_mask_of_what_is_shown_is_told_from_one_of_another_size(tmp_path, suffix, turn):
    image = write(tmp_path / f"i.{suffix}", (30, 40), turn)
    shown = ImageOps.exif_transpose(Image.open(image)).size
    mask = write(tmp_path / "m.png", shown[::-1])
    if shown == (40, 30):
        return check_sizes([{"image": image, "label": mask}])
    said = rf"m\.png: the mask is \(30, 40\), its image .*i\.{suffix} is \(40, 30\) as it is stored.*Orientation {turn}"
    with pytest.raises(ValueError, match=said + ".*Turn the mask, or save the image turned"):
        check_sizes([{"image": image, "label": mask}])
    with pytest.raises(ValueError, match="Resample the mask"):
        check_sizes([{"image": image, "label": write(tmp_path / "n.png", (40, 20))}])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("turn", "of_mask", "told"), [(1, 1, False), (6, 1, True), (3, 1, True), (6, 6, False)])
def test_masks_whose_size_cannot_tell_are_told_of(tmp_path, caplog, suffix, turn, of_mask, told):
    image = write(tmp_path / f"i.{suffix}", (30, 30), turn)
    check_sizes([{"image": image, "label": write(tmp_path / "m.png", (30, 30), of_mask)}, {"image": image}])
    assert (
        f"1 images with a mask say that they are to be turned or mirrored when they are shown (EXIF's Orientation; "
        f"such as {image})" in caplog.text
    ) == told
