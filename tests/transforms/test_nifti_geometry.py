"""NIfTI headers as other tools write them: read as nibabel reads them, and maps with the same geometry in ITK."""

import logging

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from dino_uad.data.verify import check_sizes
from dino_uad.transforms import LoadScan, LoadScand, SaveMapd
from scans import volume

VALUES = volume((4, 5, 6)).astype(np.int16)
SIZES = (0.48828125, 0.48828125, 5.0)
LPS = np.array([[-SIZES[0], 0, 0, 12], [0, -SIZES[1], 0, 14], [0, 0, SIZES[2], -20], [0, 0, 0, 1]])
SHEARED = LPS + np.array([[0, 0, 0, 0], [0, 0, 1.3, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
OTHER = np.eye(4)
OTHER[:3, :3] = Rotation.from_euler("xyz", (5, -8, 10), degrees=True).as_matrix() @ np.diag(SIZES)
OTHER[:3, 3] = (3, 4, 5)
PLAIN = np.diag([*SIZES, 1])


def written(path, sform=None, qform=None, sizes=SIZES, codes=None, values=VALUES):
    """Write a header byte by byte as told, where nibabel would make its parts agree."""
    header = nib.Nifti1Header()
    header.set_data_shape(values.shape)
    header.set_data_dtype(values.dtype)
    header.set_zooms(SIZES)
    if qform is not None:
        header.set_qform(qform, 1)
    if sform is not None:
        header.set_sform(sform, 1)
    header["pixdim"][1:4], header["magic"], header["vox_offset"] = sizes, b"n+1", 352
    if codes is not None:
        header["qform_code"], header["sform_code"] = codes
    path.write_bytes(header.binaryblock + bytes(4) + values.tobytes(order="F"))
    return path


def saved(path):
    image = LoadScan()(path)
    map_ = MetaTensor(image.clone(), meta=dict(image.meta))
    return SaveMapd("map", path.parent / "out")({"map": map_})["saved"]["map_map"]


def in_itk(path):
    """Origin, spacing and direction, as viewers built on ITK take them."""
    image = itk.imread(str(path))
    return np.r_[image.GetOrigin(), image.GetSpacing(), itk.array_from_matrix(image.GetDirection()).ravel()]


HEADERS = {
    "rounded sizes": {"sform": LPS, "sizes": (0.4883, 0.4883, 5)},
    "sizes of one": {"sform": LPS, "sizes": (1, 1, 1)},
    "sizes of one, and a qform": {"sform": LPS, "qform": np.eye(4), "sizes": (1, 1, 1)},
    "exact sizes": {"sform": LPS},
    "sheared": {"sform": SHEARED},
    "sheared, with a qform": {"sform": SHEARED, "qform": PLAIN},
    "both, different": {"sform": LPS, "qform": OTHER},
    "both, the same": {"sform": OTHER, "qform": OTHER},
    "qform only": {"qform": OTHER},
    "a qform that is not declared": {"sform": LPS, "qform": OTHER, "codes": (0, 2)},
    "an sform that is not declared": {"sform": LPS, "qform": OTHER, "codes": (1, 0)},
    "neither": {},
    "neither is declared": {"sform": LPS, "qform": OTHER, "codes": (0, 0)},
    "other codes": {"sform": OTHER, "qform": LPS, "codes": (3, 4)},
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_volume_lies_where_nibabel_says_and_its_map_on_it(tmp_path, name):
    path = written(tmp_path / "x.nii", **HEADERS[name])
    expected = nib.load(path).affine
    np.testing.assert_allclose(LoadScan()(path).meta["scan_affine"], expected, atol=1e-6)
    map_ = saved(path)
    np.testing.assert_allclose(nib.load(map_).affine, expected, atol=1e-6)
    np.testing.assert_array_equal(nib.load(map_).get_fdata(), VALUES)
    for one, other in zip(codes(path), codes(map_), strict=True):
        np.testing.assert_array_equal(one, other)
    if "sheared" not in name:  # ITK has no such geometry
        np.testing.assert_allclose(in_itk(map_), in_itk(path), atol=1e-6)


def codes(path):
    """Both forms with their codes; voxel sizes."""
    image = nib.load(path)
    return [
        image.get_qform(),
        image.get_sform(),
        *(image.header[f"{x}form_code"] for x in "qs"),
        image.header["pixdim"],
    ]


@pytest.mark.parametrize("name", ["rounded sizes", "sheared", "both, different"])
def test_units_and_a_declared_geometry(tmp_path, name):
    path = written(tmp_path / "x.nii", **HEADERS[name])
    content = bytearray(path.read_bytes())
    content[123] = 3  # xyzt_units: micrometres
    path.write_bytes(content)
    np.testing.assert_allclose(LoadScan()(path).meta["scan_affine"][:3], nib.load(path).affine[:3] * 1e-3, atol=1e-9)
    np.testing.assert_allclose(nib.load(saved(path)).affine, nib.load(path).affine, atol=1e-6)


@pytest.mark.parametrize("affine", [LPS, SHEARED])
@pytest.mark.parametrize("end", [12, 23.9])  # or where both lie on each other turned round, too
def test_a_label_and_its_image_may_round_differently(tmp_path, affine, end):
    affine = affine.copy()
    affine[:2, 3] = np.array(VALUES.shape[:2]) * SIZES[0] - SIZES[0] if end == 12 else end
    image = written(tmp_path / "i.nii", affine, sizes=(0.4883, 0.4883, 5))
    label = written(tmp_path / "l.nii", affine, values=(VALUES > 100).astype(np.uint8))
    item = {"image": str(image), "label": str(label)}
    check_sizes([item])
    loaded = LoadScand(["image", "label"])(item)
    np.testing.assert_array_equal(loaded["image"][0], VALUES)
    np.testing.assert_array_equal(loaded["label"][0], VALUES > 100)


@pytest.mark.parametrize("name", HEADERS)
def test_sizes_that_contradict_the_sform_are_told_of(tmp_path, caplog, name):
    with caplog.at_level(logging.WARNING):
        LoadScan()(written(tmp_path / "x.nii", **HEADERS[name]))
    said = "x.nii: its sform has voxels of 0.4883 x 0.4883 x 5 mm and is used; its header (pixdim) says 1 x 1 x 1 mm"
    assert (said in caplog.text) == ("sizes of one" in name)
    assert ("its sform has voxels of 0.4883 x 0.4883 x 5.166 mm" in caplog.text) == ("sheared" in name)


@pytest.mark.parametrize("sform", [np.zeros((4, 4)), np.diag([2.0, 2, 0, 1]), np.full((4, 4), np.nan)])
@pytest.mark.parametrize("qform", [None, OTHER])
def test_an_sform_without_an_inverse_is_none(tmp_path, caplog, sform, qform):
    path = written(tmp_path / "x.nii", sform, qform)
    plain = written(tmp_path / "plain.nii", None, qform)
    with caplog.at_level(logging.WARNING):
        loaded = LoadScan()(path)
    assert "x.nii: its sform has values that are no numbers, or no inverse" in caplog.text
    np.testing.assert_allclose(loaded.meta["scan_affine"], nib.load(plain).affine, atol=1e-6)
    np.testing.assert_allclose(nib.load(saved(path)).affine, nib.load(plain).affine, atol=1e-6)
    np.testing.assert_allclose(in_itk(saved(path)), in_itk(plain), atol=1e-6)


def test_a_map_on_another_grid_than_the_header_tells_has_its_own(tmp_path):
    image = LoadScan()(written(tmp_path / "x.nii", LPS))
    map_ = MetaTensor(torch.as_tensor(image.clone()), meta=dict(image.meta) | {"scan_affine": PLAIN})
    map_.meta["original_affine"] = map_.meta["affine"]
    path = SaveMapd("map", tmp_path / "out")({"map": map_})["saved"]["map_map"]
    np.testing.assert_allclose(nib.load(path).affine, PLAIN)
