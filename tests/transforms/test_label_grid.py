"""A label lies on its image by its affine, or it is an error that shows both affines."""

import nibabel as nib
import numpy as np
import pytest

from dino_uad.transforms import LoadScand
from scans import OBLIQUE, affine_of, volume, write_nifti

SHAPE = (12, 10, 7)
MARKS = np.zeros(SHAPE, np.uint8)
MARKS[3:5, 6:9, 2] = 1
MARKS[7, 2, 5] = 2


def pair(folder, label, label_affine, affine):
    """Image and label of a data list; a label without affine says in its header that its geometry is unknown."""
    image = write_nifti(folder / "a.nii.gz", volume(SHAPE), affine)
    saved = nib.Nifti1Image(label, label_affine)
    if label_affine is None:
        saved.set_sform(None)
        saved.set_qform(None)
    nib.save(saved, folder / "l.nii.gz")
    return {"image": str(image), "label": str(folder / "l.nii.gz")}


def load(item):
    return LoadScand(("image", "label"))(item)["label"]


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "oblique"])
@pytest.mark.parametrize("own", ["RAS", "LPI", "SAL", "IRP"])
def test_flipped_and_transposed_labels_come_to_the_images_voxels(tmp_path, orientation, own):
    affine = affine_of(orientation)
    label = nib.Nifti1Image(MARKS, affine)
    turned = label.as_reoriented(nib.orientations.axcodes2ornt(own))
    found = load(pair(tmp_path, np.asarray(turned.dataobj), turned.affine, affine))
    np.testing.assert_array_equal(found[0], MARKS)
    np.testing.assert_allclose(found.meta["scan_affine"], affine, atol=1e-5)


@pytest.mark.parametrize("shift", [0, 1e-5, 0.3])
def test_rounding_and_shifts_within_a_voxel_change_nothing(tmp_path, shift):
    moved = OBLIQUE.copy()
    moved[:3, 3] += shift * OBLIQUE[:3, 0]
    np.testing.assert_array_equal(load(pair(tmp_path, MARKS, moved, OBLIQUE))[0], MARKS)


def test_label_of_another_resolution(tmp_path):
    """Each voxel of a label twice as fine lies in the image's voxel whose mark it is."""
    fine = MARKS.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    halves = OBLIQUE @ np.diag([0.5, 0.5, 0.5, 1])
    halves[:3, 3] = (OBLIQUE @ [-0.25, -0.25, -0.25, 1])[:3]
    np.testing.assert_array_equal(load(pair(tmp_path, fine, halves, OBLIQUE))[0], MARKS)


def test_label_of_a_part(tmp_path):
    corner = OBLIQUE.copy()
    corner[:3, 3] = (OBLIQUE @ [2, 1, 1, 1])[:3]
    np.testing.assert_array_equal(load(pair(tmp_path, MARKS[2:10, 1:, 1:6], corner, OBLIQUE))[0], MARKS)


def beyond(affine):
    moved = affine.copy()
    moved[:3, 3] = (affine @ [500, 0, 0, 1])[:3]
    return moved


UNEXPLAINED = {
    "identity": np.eye(4),
    "spacing only": np.diag([0.7, 1.1, 3.0, 1.0]),
    "left and right confused": np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_of("LPS"),
    "unknown by its header": None,
    "elsewhere": beyond(affine_of("LPS")),
}


@pytest.mark.parametrize("case", UNEXPLAINED)
def test_unexplained_geometry_shows_both_affines(tmp_path, case):
    item = pair(tmp_path, MARKS, UNEXPLAINED[case], affine_of("LPS"))
    with pytest.raises(ValueError, match=r"l\.nii\.gz: the label's geometry .*a\.nii\.gz") as caught:
        load(item)
    assert str(caught.value).count("affine [") == 2


def test_a_transposed_label_with_the_affine_of_its_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match="same sides along other axes"):
        load(pair(tmp_path, np.ascontiguousarray(MARKS.swapaxes(0, 1)), OBLIQUE, OBLIQUE))


def test_marks_outside_of_the_image_are_not_lost(tmp_path):
    moved = OBLIQUE.copy()
    moved[:3, 3] = (OBLIQUE @ [-6, 0, 0, 1])[:3]
    with pytest.raises(ValueError, match="marked voxels lie outside"):
        load(pair(tmp_path, MARKS, moved, OBLIQUE))


@pytest.mark.parametrize(
    ("dtype", "said"),
    [(np.complex64, "complex numbers"), ([("R", "u1"), ("G", "u1"), ("B", "u1")], "colours")],
)
def test_voxels_without_one_value_are_refused_in_words(tmp_path, dtype, said):
    path = write_nifti(tmp_path / "a.nii.gz", np.zeros(SHAPE, dtype), np.eye(4))
    with pytest.raises(ValueError, match=said):
        LoadScand("image")({"image": str(path)})
