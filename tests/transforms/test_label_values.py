"""anomalous_labels: a label map is 1 where its file has one of these values, whatever its format, and 0 elsewhere."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from dino_uad.transforms import ExtractSlicesd, FillLabeld, LoadScan, LoadScand, checked_labels, label_values
from scans import write_itk, write_nifti

LABELS = np.zeros((40, 32, 6), np.uint8)
LABELS[4:30, 4:28] = 1
LABELS[10:16, 8:20, 2:4] = 2
LABELS[20, 20, 1] = 3


def picture(path, values):
    Image.fromarray(values).save(path)
    return path


def scaled(path, labels):
    """As tools write floats in 16 bits: stored from -32768 to 32767, with a slope and an intercept."""
    image = nib.Nifti1Image(labels.astype(np.float64), np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, path)
    assert nib.load(path).dataobj.slope != 1
    return path


VOLUMES = {
    "uint8.nii.gz": write_nifti,
    "scaled.nii.gz": scaled,
    "labels.nrrd": write_itk,
    "labels.mha": write_itk,
}
PICTURES = {
    "eight": lambda plane: plane,
    "sixteen": lambda plane: plane.astype(np.uint16),
    "grey as colour": lambda plane: plane[..., None].repeat(3, -1),
}


@pytest.mark.parametrize("wanted", [(2,), (2, 3)])
@pytest.mark.parametrize("name", VOLUMES)
def test_volumes(tmp_path, name, wanted):
    path = VOLUMES[name](tmp_path / name, LABELS)
    assert label_values(LoadScan()(path)) == (0, 1, 2, 3)
    found = LoadScan()(path, anomalous_labels=wanted)
    np.testing.assert_array_equal(np.asarray(found)[0], np.isin(LABELS, wanted))


@pytest.mark.parametrize("wanted", [(2,), (1, 2), (200,)])
@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_by_their_stored_values(tmp_path, kind, wanted):
    plane = np.where(LABELS[..., 2] == 1, 200, LABELS[..., 2]).astype(np.uint8)
    plane[0, 0] = 1
    path = picture(tmp_path / "mask.png", PICTURES[kind](plane))
    assert label_values(LoadScan()(path)) == (0, 1, 2, 200)
    found = LoadScan()(path, anomalous_labels=list(wanted))
    np.testing.assert_array_equal(np.asarray(found)[0].T, np.isin(plane, wanted))


def test_a_value_far_from_the_others_in_one_voxel(tmp_path):
    """Without patches or a share of the largest value: what is soft is not told by size alone."""
    labels = np.where(LABELS == 3, 100, np.where(LABELS == 2, 0, LABELS)).astype(np.uint8)
    found = LoadScan()(write_nifti(tmp_path / "x.nii.gz", labels), anomalous_labels=[100])
    np.testing.assert_array_equal(np.argwhere(np.asarray(found)[0]), [[20, 20, 1]])


def test_parcellations_of_large_numbers(tmp_path):
    labels = np.kron(np.arange(64).reshape(8, 8, 1) * 37, np.ones((5, 5, 3))).astype(np.int16)
    found = LoadScan()(write_nifti(tmp_path / "x.nii.gz", labels), anomalous_labels=[37 * 41])
    np.testing.assert_array_equal(np.asarray(found)[0], labels == 37 * 41)


def soft(path):
    return write_nifti(path, LABELS * np.float32(0.3))


def colours(path):
    return picture(path, LABELS[..., 2, None] * np.array([100, 0, 40], np.uint8))


def palette(path):
    image = Image.fromarray(LABELS[..., 2]).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(path)
    return path


def jpeg(path):
    return picture(path, LABELS[..., 2] * np.uint8(127))


@pytest.mark.parametrize(
    ("make", "name", "said"),
    [
        (soft, "x.nii.gz", "has values that are no whole numbers"),
        (colours, "x.png", "has colours"),
        (palette, "x.png", r"has colours \(those of a palette"),
        (jpeg, "x.jpg", r"has \d+ values that lie in no patches"),
    ],
)
def test_what_is_no_label_map_is_named(tmp_path, make, name, said):
    path = make(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: the mask {said}.*expected a label map for anomalous_labels"):
        LoadScan()(path, anomalous_labels=[2])


@pytest.mark.parametrize("value", [[0, 2], 0, [], "2", ["2"], [2.0], [True], [-1], {2: 1}])
def test_values_that_are_no_labels(value):
    with pytest.raises(ValueError, match=r"anomalous_labels is .*; expected whole numbers of at least 1"):
        checked_labels(value)


@pytest.mark.parametrize("value", [3, (3,), [3, 3], np.int64(3)])
def test_one_form_for_what_means_the_same(value):
    assert checked_labels(value) == (3,)


def test_an_entry_of_a_list_says_which_labels_count(tmp_path):
    """Brought to its image's grid by nearest neighbours, and read from parts: the same as by hand."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    image = write_nifti(tmp_path / "image.nii.gz", np.ones(LABELS.shape, np.float32) * 7, affine)
    flipped = np.diag([-2.0, 2.0, 2.0, 1.0])
    flipped[0, 3] = 2 * 39
    one = write_nifti(tmp_path / "one.nii.gz", LABELS[::-1].copy(), flipped)
    two = write_nifti(tmp_path / "two.nii.gz", LABELS * (LABELS == 1), affine)
    entry = {"image": str(image), "label": str(one), "anomalous_labels": [2]}
    load = LoadScand(("image", "label"))
    np.testing.assert_array_equal(np.asarray(load(entry)["label"])[0], LABELS == 2)
    assert float(load(entry)["image"].min()) == 7
    parts = load(entry | {"label": [str(one), str(two)], "anomalous_labels": [1]})
    np.testing.assert_array_equal(np.asarray(parts["label"])[0], LABELS == 1)
    slices = ExtractSlicesd()(load(entry))
    assert [int(FillLabeld("label")(item)["label"].sum()) for item in slices] == [0, 0, 72, 72, 0, 0]
    with pytest.raises(ValueError, match=r"one.nii.gz: the label was made binary.*leave anomalous_labels out"):
        ExtractSlicesd(preset="liver_ct")(load(entry))
