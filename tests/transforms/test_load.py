"""LoadScand: one loader for pictures and volumes (what it refuses: tests/robustness/test_bad_files.py)."""

import logging

import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged
from PIL import Image

from dino_uad.data.collate import spacing
from dino_uad.findings import ScanGrid
from dino_uad.transforms import ExtractSlicesd, Grid, is_picture, looks
from dino_uad.transforms.load import LoadScan, LoadScand
from dino_uad.transforms.orient import OrientScand
from dino_uad.transforms.picture_reader import PICTURE_AFFINE
from scans import affine_of, volume, write_dicom, write_itk, write_nifti


@pytest.fixture(autouse=True)
def quiet_itk(caplog):
    caplog.set_level(logging.CRITICAL, "itk")


def test_monai_label_can_ask_for_the_meta_dictionary(tmp_path):
    path = write_nifti(tmp_path / "a.nii", volume())
    transform = LoadScand("image")
    assert isinstance(transform, LoadImaged)
    transform._loader.image_only = False
    result = transform({"image": str(path)})
    assert tuple(result["image"].shape) == (1, 12, 10, 7) and "affine" in result["image_meta_dict"]


def test_missing_label_is_passed_over(tmp_path):
    path = write_nifti(tmp_path / "a.nii", volume())
    assert set(LoadScand(["image", "label"], allow_missing_keys=True)({"image": path})) == {"image"}


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "mha", "mhd", "dicom"])
def test_volume_formats(tmp_path, suffix):
    path = tmp_path / f"ä b.{suffix}"
    if suffix.startswith("nii"):
        write_nifti(path, volume(), affine_of("LPS"))
    else:
        (write_dicom if suffix == "dicom" else write_itk)(path, volume())
    image = LoadScan()(path)
    np.testing.assert_array_equal(image[0], volume())
    assert image.dtype == torch.float32 and not image.meta["unit_range"]
    assert "Doe" not in str(image.meta)


def test_picture_comes_upright(tmp_path):
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(rows).save(tmp_path / "a.png")
    image = Compose([LoadScand("image"), OrientScand("image")])({"image": tmp_path / "a.png"})["image"]
    np.testing.assert_allclose(image[0], rows / 255, atol=1e-7)


AXIAL = ((12, 10), "LPS", lambda plane: plane.T)  # rows run to posterior, columns to the patient's left
SINGLE_SLICES = {
    "two axes": AXIAL,
    "axial": ((12, 10, 1), *AXIAL[1:]),
    "sagittal, posterior and inferior": ((12, 10, 1), "PIR", lambda plane: plane.T),
    "sagittal, posterior and superior": ((1, 12, 10), "LPS", lambda plane: plane.T[::-1]),
    "coronal, right and superior": ((12, 1, 10), "RAS", lambda plane: plane.T[::-1, ::-1]),
}


@pytest.mark.parametrize("case", SINGLE_SLICES)
def test_single_slice_becomes_a_volume_of_one_upright_slice(tmp_path, case):
    shape, orientation, upright = SINGLE_SLICES[case]
    values, affine = volume(shape), affine_of(orientation)
    steps = Compose([LoadScand("image"), OrientScand("image")])
    image = steps({"image": write_nifti(tmp_path / "a.nii", values, affine)})["image"]
    np.testing.assert_array_equal(image[0, ..., 0], upright(values.squeeze()))
    np.testing.assert_allclose(image.meta["scan_affine"], affine, atol=1e-6)
    assert tuple(image.meta["scan_shape"]) == shape


def test_trailing_axes_of_one_are_dropped(tmp_path):
    path = write_nifti(tmp_path / "a.nii", volume()[..., None])
    assert tuple(LoadScan()(path).shape) == (1, 12, 10, 7)


def test_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        LoadScan()(tmp_path / "absent.png")


def test_loader_can_be_shared_by_threads(tmp_path, monkeypatch):
    """MONAI Label scores images in several threads with one loader: no call may change what another one returns."""
    path = write_nifti(tmp_path / "p1.nii.gz", volume())
    loader = LoadScan(image_only=False)
    monkeypatch.setattr(LoadScan, "__setattr__", lambda *_: pytest.fail("the loader changed while it was used"))
    image, meta = loader(path)
    assert image.shape == (1, 12, 10, 7) and meta is image.meta


@pytest.mark.parametrize("suffix", ["nii", "nrrd", "mha", "dicom", "png", "tif"])
def test_a_volume_of_a_millimetre_at_the_origin_is_no_picture(tmp_path, suffix):
    """Its affine is the one that pictures are given."""
    path, picture = tmp_path / f"a.{suffix}", suffix in ("png", "tif")
    if picture:
        Image.fromarray(volume()[..., 0].astype(np.uint8)).save(path)
    elif suffix == "nii":
        write_nifti(path, volume(), PICTURE_AFFINE)
    else:
        (write_dicom if suffix == "dicom" else write_itk)(path, volume(), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    image = LoadScan()(path)
    np.testing.assert_array_equal(image.meta["affine"], PICTURE_AFFINE)
    slices = ExtractSlicesd("image")({"image": image})
    assert is_picture(image) == is_picture(slices[0]["image"]) == picture
    assert spacing(slices[0]["image"]) == (None if picture else (1, 1, 1))
    assert (Grid.of(image) is None) == (ScanGrid.from_meta(image.meta, "PLS").affine is None) == picture
    planes = torch.stack([torch.as_tensor(one["image"]) for one in slices])
    assert looks(planes, slices[0]["image"].meta, "PLS")[1] == (None if picture else "LPS")


def test_what_a_volume_says_of_itself_makes_it_no_picture(tmp_path):
    write_itk(tmp_path / "a.nrrd", volume())
    header, _, values = (tmp_path / "a.nrrd").read_bytes().partition(b"\n\n")
    (tmp_path / "a.nrrd").write_bytes(header + b"\npicture:=1\nunit_range:=1\n\n" + values)
    image = LoadScan()(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(image[0], volume())
    assert image.meta["picture"] is False and image.meta["unit_range"] is False
