"""Orientation, resizing, slicing and saving come back to the input's own grid."""

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, SaveImaged
from PIL import Image

from dino_uad.transforms.extract_slices import ExtractSlicesd
from dino_uad.transforms.load import LoadScan, LoadScand
from dino_uad.transforms.orient import OrientScand
from dino_uad.transforms.resize import InPlaneResize, InPlaneResized
from dino_uad.transforms.save import SaveMapd
from scans import ORIENTATIONS, affine_of, volume, write_dicom, write_itk, write_nifti


def invert(steps: Compose, data: dict) -> torch.Tensor:
    """Bring a copy of the preprocessed image back, as inference does with its map."""
    data["pred"] = data["image"].clone()
    return Invertd("pred", steps, orig_keys="image", nearest_interp=False)(data)["pred"]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("axcodes", ["PLS", "ILP", "IPL"])
def test_orientation_inverts_to_the_identical_grid(tmp_path, orientation, axcodes):
    path = write_nifti(tmp_path / "a.nii.gz", volume(), affine_of(orientation))
    steps = Compose([LoadScand("image"), OrientScand("image", axcodes)])
    data = steps({"image": path})
    if orientation != "oblique":
        assert "".join(nib.aff2axcodes(data["image"].affine.numpy())) == axcodes
    back = invert(steps, data)
    np.testing.assert_array_equal(back[0], volume())
    np.testing.assert_allclose(back.affine, affine_of(orientation), atol=1e-6)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_saved_map_has_the_volumes_shape_and_affine(tmp_path, orientation):
    path = write_nifti(tmp_path / "a.nii.gz", volume(), affine_of(orientation))
    steps = Compose([LoadScand("image"), OrientScand("image"), InPlaneResized("image", 28)])
    data = steps({"image": path})
    assert data["image"].shape[1:3] == (28, 28)
    map_ = invert(steps, data)
    SaveMapd(["map", "mask"], tmp_path / "out")({"map": map_, "mask": (map_ > 400).to(torch.uint8)})
    for name, dtype in (("a_map", np.float32), ("a_mask", np.uint8)):
        saved = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        assert saved.shape == volume().shape and saved.get_data_dtype() == dtype
        np.testing.assert_allclose(saved.affine, affine_of(orientation), atol=1e-5)  # NIfTI keeps float32


@pytest.mark.parametrize("kind", ["nrrd", "mha", "dicom"])
def test_maps_of_other_formats_lie_on_their_input(tmp_path, kind):
    path = (write_dicom if kind == "dicom" else write_itk)(tmp_path / f"a.{kind}", volume())
    steps = Compose([LoadScand("image"), OrientScand("image")])
    saved = SaveMapd("map", tmp_path / "out")({"map": invert(steps, steps({"image": path}))})["map"].meta["saved_to"]
    np.testing.assert_array_equal(nib.load(saved).get_fdata(), volume())
    np.testing.assert_allclose(nib.load(saved).affine, LoadScan()(path).meta["scan_affine"], atol=1e-6)


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1), (1, 12, 10), (12, 1, 10)])
def test_map_of_a_single_slice_has_the_files_shape(tmp_path, shape):
    path = write_nifti(tmp_path / "a.nii", volume(shape), affine_of("PIR"))
    steps = Compose([LoadScand("image"), OrientScand("image")])
    saved = SaveMapd("map", tmp_path / "out")({"map": invert(steps, steps({"image": path}))})["map"].meta["saved_to"]
    np.testing.assert_array_equal(nib.load(saved).get_fdata().reshape(shape), volume(shape))
    np.testing.assert_allclose(nib.load(saved).affine, affine_of("PIR"), atol=1e-5)


def test_maps_of_pictures_are_float_tiff_and_png(tmp_path):
    rows = np.random.default_rng(0).integers(0, 255, (9, 14), dtype=np.uint8)
    Image.fromarray(rows).save(tmp_path / "a.png")
    steps = Compose([LoadScand("image"), OrientScand("image")])
    map_ = invert(steps, steps({"image": tmp_path / "a.png"}))
    SaveMapd(["map", "mask"], tmp_path / "out")({"map": map_, "mask": (map_ > 0.5).to(torch.uint8)})
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/a_map.tif")), (rows / np.float32(255)))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/a_mask.png")), (rows / 255 > 0.5) * 255)


def test_same_named_inputs_do_not_overwrite_each_other(tmp_path):
    save = SaveMapd("map", tmp_path / "out")
    assert isinstance(save, SaveImaged)
    for folder in ("one", "two", "one"):
        path = write_nifti(tmp_path / folder / "a.nii", volume())
        save({"map": LoadScan()(path)})
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_map_that_was_not_inverted_is_refused(tmp_path):
    path = write_nifti(tmp_path / "a.nii", volume((8, 8, 8)), affine_of("RAS"))
    data = Compose([LoadScand("image"), OrientScand("image")])({"image": path})
    with pytest.raises(ValueError, match="Invertd"):
        SaveMapd("image", tmp_path / "out")(data)
    assert not list((tmp_path / "out").glob("*"))


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.sampled_from(ORIENTATIONS), st.integers(1, 50))
def test_any_size_and_orientation_inverts(height, width, depth, orientation, size):
    affine = affine_of(orientation)
    image = MetaTensor(torch.rand(1, height, width, depth), affine=torch.from_numpy(affine))
    steps = Compose([OrientScand("image"), InPlaneResized("image", size)])
    back = invert(steps, steps({"image": image}))
    assert back.shape == image.shape
    np.testing.assert_allclose(back.affine, affine, atol=1e-6)


def test_shrinking_is_antialiased_and_labels_stay_binary():
    stripes = torch.zeros(1, 64, 64)
    stripes[..., ::2] = 1
    assert float(InPlaneResize(16)(stripes)[:, 2:-2, 2:-2].std()) < 0.1
    label = InPlaneResize(16)((torch.rand(1, 64, 64, 3) > 0.5).float(), mode="nearest")
    assert label.shape == (1, 16, 16, 3) and set(label.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_slices_are_planes_of_the_volume(axis):
    image = MetaTensor(torch.rand(2, 6, 5, 4), affine=torch.from_numpy(affine_of("oblique")))
    slices = ExtractSlicesd("image", axis=axis)({"image": image})
    assert [s["slice_index"] for s in slices] == list(range(image.shape[1:][axis]))
    stacked = torch.stack([s["image"].as_tensor() for s in slices], dim=1 + axis % 3)
    assert torch.equal(stacked, image.as_tensor())
    third = slices[3]["image"]
    in_plane = [a for a in range(3) if a != axis % 3]
    voxel = np.zeros(4)
    voxel[axis % 3], voxel[in_plane[0]], voxel[in_plane[1]], voxel[3] = 3, 2, 1, 1
    np.testing.assert_allclose(third.affine @ torch.tensor([2.0, 1, 0, 1]).double(), image.affine @ voxel, atol=1e-9)
