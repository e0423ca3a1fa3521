"""Millimetres are those that a file states: where it states none, findings are counted in pixels and voxels."""

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor
from pydicom.dataset import Dataset

from dicom_files import dataset, write, write_slices
from dino_uad.data.collate import spacing
from dino_uad.findings import MinSize, extract_findings
from dino_uad.findings.grid import ScanGrid
from dino_uad.transforms import LoadScan, ThresholdMapd
from scans import volume, write_nifti

VALUES = volume((4, 5, 6)).astype(np.int16)
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 5 6\nencoding: raw\nendian: little\n"
META = "ObjectType = Image\nNDims = 3\nDimSize = 4 5 6\nElementType = MET_SHORT\n"


def nrrd(folder, line="", end="\n"):
    head = (NRRD + line + "\n").replace("\n", end)
    (folder / "x.nrrd").write_bytes(head.encode() + VALUES.tobytes(order="F"))
    return folder / "x.nrrd"


def metaimage(folder, line=""):
    (folder / "x.mhd").write_text(f"{META}{line}ElementDataFile = x.raw\n")
    (folder / "x.raw").write_bytes(VALUES.tobytes(order="F"))
    return folder / "x.mhd"


def nifti(folder, size, sform=0, axis=1):
    header = nib.Nifti1Image(VALUES, np.eye(4)).header
    header["pixdim"][axis], header["qform_code"], header["sform_code"] = size, 0, sform
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (folder / "x.nii").write_bytes(header.binaryblock + bytes(4) + VALUES.tobytes(order="F"))
    return folder / "x.nii"


def single(folder, kind="US", **tags):
    return write(folder / "x.dcm", dataset(VALUES[..., 0].astype("u2"), kind, **tags))


def region(x1=4, y1=3, units=3):
    """Over an image of 4 rows and 5 columns, in steps of 0.05 cm and 0.07 cm."""
    item = Dataset()
    item.RegionLocationMinX0, item.RegionLocationMinY0, item.RegionLocationMaxX1, item.RegionLocationMaxY1 = (
        0,
        0,
        x1,
        y1,
    )
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = 0.05, -0.07
    return item


def regions(*items):
    return {"SequenceOfUltrasoundRegions": list(items)}


def series(folder, spacing):
    return write_slices(folder / "s", VALUES.astype("u2"), PixelSpacing=spacing)


# Name: what writes it, and the columns' lengths of its affine where it states them.
FILES = {
    "nrrd": (nrrd, None),
    "nrrd, one is nan": (lambda folder: nrrd(folder, "spacings: 2 3 nan\n"), None),
    "nrrd, spacings": (lambda folder: nrrd(folder, "spacings: 2 3 5\n"), (2, 3, 5)),
    "nrrd of Windows": (lambda folder: nrrd(folder, "spacings: 2 3 5\n", "\r\n"), (2, 3, 5)),
    "nrrd, directions": (
        lambda folder: nrrd(folder, "space: RAS\nspace directions: (2,0,0) (0,3,0) (0,0,5)\n"),
        (2, 3, 5),
    ),
    "metaimage": (metaimage, None),
    "metaimage, spacing": (lambda folder: metaimage(folder, "ElementSpacing = 2 3 5\n"), (2, 3, 5)),
    "metaimage, size": (lambda folder: metaimage(folder, "ElementSize = 2 3 5\n"), (2, 3, 5)),
    "nifti": (lambda folder: nifti(folder, 0), None),
    "nifti, the third": (lambda folder: nifti(folder, 0, axis=3), None),
    "nifti with an sform": (lambda folder: nifti(folder, 0, 1), (1, 1, 1)),
    "nifti, negative": (lambda folder: nifti(folder, -2), (2, 1, 1)),
    "ultrasound": (single, None),
    "radiograph": (lambda folder: single(folder, "DX"), None),
    "radiograph, of zero": (lambda folder: single(folder, "DX", PixelSpacing=["0", "0"]), None),
    "radiograph, spacing": (lambda folder: single(folder, "DX", PixelSpacing=["3", "2"]), (2, 3)),
    "radiograph, at the detector": (lambda folder: single(folder, "DX", ImagerPixelSpacing=["3", "2"]), (2, 3)),
    "one region": (lambda folder: single(folder, **regions(region())), (0.5, 0.7)),
    "a part": (lambda folder: single(folder, **regions(region(x1=2))), None),
    "a region in seconds": (lambda folder: single(folder, **regions(region(units=4))), None),
    "two regions": (lambda folder: single(folder, **regions(region(), region())), None),
    "series": (lambda folder: series(folder, None), None),
    "series, spacing": (lambda folder: series(folder, ["3", "2"]), (2, 3, 4)),
}


@pytest.mark.parametrize("name", FILES)
def test_which_files_state_millimetres(tmp_path, monkeypatch, name):
    make, sizes = FILES[name]
    image = LoadScan()(make(tmp_path))
    columns = np.linalg.norm(image.meta["scan_affine"][:3, :3], axis=0)
    if sizes:
        assert image.meta["no_spacing"] == "" and columns[: len(sizes)] == pytest.approx(sizes, rel=1e-6)
        assert spacing(image) is not None
    else:
        assert image.meta["no_spacing"].endswith(("states no pixel spacing", "states no voxel sizes"))
        assert spacing(image) is None
    threshold = ThresholdMapd("map", tmp_path / "model.pt")
    threshold._thresholds = (float(image.max()), float(image.max()))
    result = threshold({"map": MetaTensor(image.clone(), meta=dict(image.meta))})
    (finding,) = result["findings"]
    if sizes:
        assert (finding.unit, finding.diameter_unit) == ("ml" if len(sizes) == 3 else "mm2", "mm")
        assert finding.size == pytest.approx(np.prod(sizes) / (1000 if len(sizes) == 3 else 1), rel=1e-6)
        assert finding.world is not None and "notes" not in result
        return
    volume_ = image.shape[-1] > 1
    assert (finding.size, finding.unit, finding.diameter_unit) == (1, "voxels" if volume_ else "px", "px")
    assert finding.world is None and finding.slice_diameter == pytest.approx(np.sqrt(2))
    assert finding.diameter == (None if volume_ else pytest.approx(np.sqrt(2)))
    assert result["notes"] == [
        f"{image.meta['no_spacing']}: findings are measured in pixels or voxels and have no place in millimetres"
    ]


@pytest.mark.parametrize(("text", "left"), [("1 ml", 2), ("50 mm2", 2), ("3 px", 1), ("3", 1), ("5", 0)])
def test_a_smallest_size_in_millimetres_asks_nothing_of_what_has_none(text, left):
    scores = np.zeros((8, 8, 3))
    scores[1, 1, 1], scores[4:6, 4:6, 1] = 1, 1
    for shape in ((8, 8, 3), (8, 8, 1)):
        grid = ScanGrid(shape, np.eye(4), 2, no_spacing="none stated")
        part = scores[..., :3] if shape[2] == 3 else scores[..., 1:2]
        assert len(extract_findings(part, grid, 1, min_size=MinSize.parse(text))[1]) == left


def test_a_nifti_slice_needs_no_thickness(tmp_path):
    path = write_nifti(tmp_path / "x.nii", VALUES[..., :1], np.diag([2.0, 3, 1, 1]))
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)  # the codes of qform and sform
    content[88:92] = bytes(4)  # pixdim[3]
    path.write_bytes(content)
    assert LoadScan()(path).meta["no_spacing"] == ""
