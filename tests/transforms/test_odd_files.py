"""Files that are legal, or nearly, and that readers stumble over."""

import logging
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

import dicom_files
from dino_uad.data.content import count_values
from dino_uad.transforms import LoadScan, LoadScand
from scans import volume, write_itk, write_nifti

VALUES = volume((4, 5, 6)).astype(np.int16)


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd", "nhdr"])
def test_names_that_are_not_utf8(tmp_path, suffix):
    write_itk(tmp_path / f"scan.{suffix}", VALUES)
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9." + suffix.encode())
    os.rename(tmp_path / f"scan.{suffix}", name)
    loaded = LoadScan()(name)
    np.testing.assert_array_equal(loaded[0], VALUES)
    assert loaded.meta["filename_or_obj"] == name
    write_itk(tmp_path / f"mask.{suffix}", (VALUES > 100).astype(np.uint8))
    os.rename(tmp_path / f"mask.{suffix}", name)
    assert count_values(Path(name)) == 2


@pytest.mark.parametrize("name", ["x.MHA", "x.NRRD", "x.Mhd", "x.NHDR"])
def test_endings_in_capitals(tmp_path, name):
    """ITK knows some of them by the ending's small letters only."""
    write_itk(tmp_path / name.lower(), VALUES).rename(tmp_path / name)
    loaded = LoadScan()(tmp_path / name)
    np.testing.assert_array_equal(loaded[0], VALUES)
    assert loaded.meta["filename_or_obj"] == str(tmp_path / name) and loaded.meta["no_spacing"] == ""


def test_a_dicom_folder_that_is_not_utf8(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/s\xe9rie"))
    dicom_files.write_slices(folder, VALUES.astype("u2"))
    np.testing.assert_array_equal(LoadScan()(folder)[0], VALUES)


@pytest.mark.parametrize(("size", "sform", "told"), [(0, 0, True), (-1, 0, True), (0, 1, False), (2, 0, False)])
def test_voxel_sizes_that_are_none_are_told_of(tmp_path, caplog, size, sform, told):
    header = nib.Nifti1Image(VALUES, np.eye(4)).header
    header["pixdim"][1], header["qform_code"], header["sform_code"] = size, 0, sform
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (tmp_path / "x.nii").write_bytes(header.binaryblock + bytes(4) + VALUES.tobytes(order="F"))
    with caplog.at_level(logging.WARNING):
        assert LoadScan()(tmp_path / "x.nii").shape == (1, 4, 5, 6)
    assert (f"x.nii: voxel sizes of {size} x 1 x 1 mm" in caplog.text) == told


@pytest.mark.parametrize(("shift", "told"), [(0.2, False), (50, True)])
def test_qform_and_sform_that_differ_are_told_of(tmp_path, caplog, shift, told):
    image = nib.Nifti1Image(VALUES, np.eye(4))
    image.set_sform(np.diag([2, 2, 2, 1.0]), 1)
    other = np.diag([2, 2, 2, 1.0])
    other[0, 3] = shift
    image.set_qform(other, 1)
    nib.save(image, tmp_path / "x.nii.gz")
    with caplog.at_level(logging.WARNING):
        loaded = LoadScan()(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(loaded.meta["scan_affine"], image.get_sform())
    assert ("qform and sform put its voxels up to 50.0 mm apart" in caplog.text) == told


@pytest.mark.parametrize(("shape", "read"), [((4, 5, 6, 1), True), ((4, 5, 6, 3), False), ((4, 5, 6, 1, 2), False)])
def test_labels_of_four_axes(tmp_path, shape, read):
    item = {"image": write_nifti(tmp_path / "i.nii", VALUES), "label": tmp_path / "l.nii"}
    write_nifti(item["label"], np.ones(shape, np.uint8))
    if read:
        assert LoadScand(["image", "label"])(item)["label"].shape == (1, 4, 5, 6)
        return
    with pytest.raises(ValueError, match=r"l\.nii: found \d channels or time points.*Extract one"):
        LoadScand(["image", "label"])(item)


@pytest.mark.parametrize("kind", [1, 4, 0])
def test_of_a_tiff_pyramid_the_full_page_is_read(tmp_path, kind):
    """Tag NewSubfileType: 1 a reduced copy, 4 a transparency mask, 0 another picture."""
    values = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "x.tif"), True) as file:
        for step in (1, 2, 4):
            tags = TiffImagePlugin.ImageFileDirectory_v2()
            tags[254] = kind if step > 1 else 0
            Image.fromarray(values[::step, ::step]).save(file, "TIFF", tiffinfo=tags)
            file.newFrame()
    if kind:
        np.testing.assert_allclose(LoadScan()(tmp_path / "x.tif")[0].T * 255, values, atol=1e-3)
        return
    with pytest.raises(ValueError, match="3 pages, one was expected"):
        LoadScan()(tmp_path / "x.tif")


@pytest.mark.parametrize(("written", "named"), [("nii", "nii.gz"), ("nii.gz", "nii")])
def test_compression_that_the_name_denies_is_told(tmp_path, written, named):
    write_nifti(tmp_path / f"x.{written}", VALUES).rename(tmp_path / f"y.{named}")
    with pytest.raises(ValueError, match=rf"y\.{named}: the file is .*Let its name end with \.{written}\."):
        LoadScan()(tmp_path / f"y.{named}")


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_values_that_a_header_has_lost_are_told_of(tmp_path, damage):
    write_itk(tmp_path / "x.mhd", VALUES)
    (raw,) = (path for path in tmp_path.iterdir() if path.suffix != ".mhd")
    if damage == "missing":
        raw.unlink()
    else:
        raw.write_bytes(raw.read_bytes()[:9])
    said = rf"{raw.name}, is missing beside it" if damage == "missing" else "File cannot be read"
    with pytest.raises(ValueError, match=rf"x\.mhd: cannot be read: .*{said}(?!.*No such file)"):
        LoadScan()(tmp_path / "x.mhd")


def test_an_sform_that_is_no_number_is_told_of(tmp_path, caplog):
    nib.save(nib.Nifti1Image(VALUES, np.diag([2.0, 2, 2, 1])), tmp_path / "x.nii")
    content = bytearray((tmp_path / "x.nii").read_bytes())
    content[280:284] = np.float32("nan").tobytes()
    (tmp_path / "x.nii").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert np.isfinite(LoadScan()(tmp_path / "x.nii").meta["scan_affine"]).all()
    assert "x.nii: its sform has values that are no numbers" in caplog.text
