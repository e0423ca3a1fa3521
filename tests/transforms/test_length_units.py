"""Volumes that count in another unit than millimetres: measured in millimetres, saved on the file's own grid."""

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from dino_uad.data.verify import check_sizes
from dino_uad.findings import ScanGrid
from dino_uad.transforms import LoadScan, LoadScand, SaveMapd
from scans import volume

VALUES = volume((4, 5, 6)).astype(np.int16)
AFFINE = np.array([[-25.0, 0, 0, 100], [0, 30.0, 0, -7], [0, 0, 50.0, 9], [0, 0, 0, 1]])


def nifti(path, unit, affine=AFFINE, values=VALUES):
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


def itk_spacing(path):
    """In millimetres, by another reader."""
    image = itk.imread(str(path))
    return [float(side) for side in image.GetSpacing()]


def saved(path):
    """The map that was saved of a volume."""
    image = LoadScan()(path)
    data = {"map": MetaTensor(image.clone(), meta=dict(image.meta))}
    return nib.load(SaveMapd("map", path.parent / "out")(data)["saved"]["map_map"])


@pytest.mark.parametrize(("unit", "millimetres"), [("micron", 1e-3), ("meter", 1e3), ("mm", 1), ("unknown", 1)])
def test_nifti_units(tmp_path, caplog, unit, millimetres):
    path = nifti(tmp_path / "x.nii.gz", unit)
    image = LoadScan()(path)
    expected = np.diag([millimetres] * 3 + [1]) @ AFFINE
    np.testing.assert_allclose(image.meta["scan_affine"], expected)
    np.testing.assert_allclose(itk_spacing(path), np.abs(np.diag(expected))[:3], rtol=1e-6)
    assert ScanGrid.from_meta(image.meta, "PLS").pixel_area == pytest.approx(25 * 30 * millimetres**2)
    assert (f"x.nii.gz: its header counts in {unit}s: voxels of " in caplog.text) == (millimetres != 1)
    result = saved(path)
    np.testing.assert_allclose(result.affine, AFFINE, rtol=1e-6)
    assert result.header.get_xyzt_units()[0] == ("unknown" if millimetres == 1 else unit)
    np.testing.assert_allclose(itk_spacing(result.get_filename()), itk_spacing(path), rtol=1e-6)


def test_label_and_image_may_count_in_different_units(tmp_path):
    image = nifti(tmp_path / "i.nii", "micron")
    label = nifti(tmp_path / "l.nii", "mm", np.diag([1e-3] * 3 + [1]) @ AFFINE, (VALUES > 100).astype(np.uint8))
    item = {"image": str(image), "label": str(label)}
    check_sizes([item])
    loaded = LoadScand(["image", "label"])(item)
    np.testing.assert_array_equal(loaded["label"][0], VALUES > 100)
    nifti(label, "micron", np.diag([1e-3] * 3 + [1]) @ AFFINE, (VALUES > 100).astype(np.uint8))
    with pytest.raises(ValueError, match="geometry does not lay it on its image"):
        LoadScand(["image", "label"])(item)


def test_voxels_of_half_a_micrometre_have_a_geometry(tmp_path):
    path = nifti(tmp_path / "x.nii", "micron", np.diag([0.05, 0.05, 0.05, 1]))
    np.testing.assert_allclose(LoadScan()(path).meta["scan_affine"], np.diag([5e-5, 5e-5, 5e-5, 1]))


def nrrd(path, units, kind="short", values=VALUES):
    head = f"NRRD0004\ntype: {kind}\ndimension: 3\nspace: right-anterior-superior\nsizes: 4 5 6\nencoding: raw\n"
    head += "space directions: (25,0,0) (0,30,0) (0,0,50)\nspace origin: (1,2,3)\nendian: little\n"
    head += f"space units: {units}\n\n" if units else "\n"
    path.write_bytes(head.encode() + values.tobytes(order="F"))
    return path


@pytest.mark.parametrize(
    ("units", "millimetres", "written"),
    [
        ('"um" "um" "um"', 1e-3, "micron"),
        ('"mm" "mm" "mm"', 1, "unknown"),
        ("", 1, "unknown"),
        ('"cm" "cm" "cm"', 10, "mm"),
    ],
)
def test_nrrd_units(tmp_path, units, millimetres, written):
    path = nrrd(tmp_path / "x.nrrd", units)
    image = LoadScan()(path)
    np.testing.assert_allclose(image.meta["scan_affine"][:3, 3], np.array([1, 2, 3]) * millimetres)
    np.testing.assert_allclose(
        np.diag(image.meta["scan_affine"]), np.array([25, 30, 50, 1 / millimetres]) * millimetres
    )
    result = saved(path)
    own = millimetres if written == "mm" else 1  # NIfTI has no centimetres
    np.testing.assert_allclose(result.header.get_zooms(), np.array([25, 30, 50]) * own, rtol=1e-6)
    assert result.header.get_xyzt_units()[0] == written


def test_units_that_differ_from_axis_to_axis_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"x\.nrrd: cannot be read: its axes have different units \(um, um, mm\)"):
        LoadScan()(nrrd(tmp_path / "x.nrrd", '"um" "um" "mm"'))


@pytest.mark.parametrize(("kind", "of"), [("int8", "i1"), ("longlong", "i8"), ("ulonglong", "u8"), ("uint", "u4")])
def test_every_type_of_integers_is_read(tmp_path, kind, of):
    values = (VALUES % 100 - (50 if of[0] == "i" else 0)).astype(of)
    np.testing.assert_array_equal(LoadScan()(nrrd(tmp_path / "x.nrrd", "", kind, values))[0], values)
    assert LoadScan()(tmp_path / "x.nrrd").dtype == torch.float32
    meta = {"i1": "MET_CHAR", "i8": "MET_LONG_LONG", "u8": "MET_ULONG_LONG", "u4": "MET_UINT"}[of]
    head = f"ObjectType = Image\nNDims = 3\nDimSize = 4 5 6\nElementType = {meta}\nElementDataFile = LOCAL\n"
    (tmp_path / "x.mha").write_bytes(head.encode() + values.tobytes(order="F"))
    np.testing.assert_array_equal(LoadScan()(tmp_path / "x.mha")[0], values)


@pytest.mark.parametrize(("layers", "said"), [(1, None), (2, r"each voxel has 2 values \(vector of unsigned_char")])
def test_layers_of_a_segmentation(tmp_path, layers, said):
    values = np.stack([(VALUES > 100) * (k + 1) for k in range(layers)]).astype(np.uint8)
    head = (
        f"NRRD0004\ntype: uchar\ndimension: 4\nspace: right-anterior-superior\nsizes: {layers} 4 5 6\nencoding: raw\n"
    )
    head += (
        "space directions: none (1,0,0) (0,1,0) (0,0,1)\nkinds: list domain domain domain\nspace origin: (0,0,0)\n\n"
    )
    path = tmp_path / "x.seg.nrrd"
    path.write_bytes(head.encode() + values.tobytes(order="F"))
    if said is None:
        np.testing.assert_array_equal(LoadScan()(path)[0], values[0])
        return
    with pytest.raises(ValueError, match=rf"x\.seg\.nrrd: cannot be read: {said}.*Save the channel or layer"):
        LoadScan()(path)
