"""The mark in the files that this package writes, and nothing else."""

import gzip
import io
import struct
import zlib

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from dino_uad.data import datalist
from dino_uad.data.brightness import warn_dark
from dino_uad.report.charts import chart, to_png
from dino_uad.report.panels import png
from dino_uad.transforms import LoadScan, SaveMapd, is_own_result
from scans import volume, write_dicom, write_itk, write_nifti


def saved(path, tmp_path, **kinds):
    image = LoadScan()(path)
    data = {key: MetaTensor(image.to(kind), meta=dict(image.meta)) for key, kind in kinds.items()}
    SaveMapd(list(data), tmp_path / "out")(data)
    return sorted((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["p.png", "p.nii.gz"])
def test_maps_and_masks_are_marked_under_any_name(tmp_path, name):
    source = tmp_path / name
    if name.endswith("png"):
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(source)
    else:
        write_nifti(source, volume())
    files = saved(source, tmp_path, anomaly=torch.float32, label=torch.uint8)
    assert len(files) == 2 and not is_own_result(source)
    for file in files:
        assert is_own_result(file.rename(file.with_name(f"other_{file.name}")))


def test_the_mark_does_not_change_what_is_read(tmp_path):
    write_nifti(tmp_path / "p.nii.gz", volume())
    (file,) = saved(tmp_path / "p.nii.gz", tmp_path, anomaly=torch.float32)
    np.testing.assert_array_equal(nib.load(file).get_fdata(), nib.load(tmp_path / "p.nii.gz").get_fdata())


def test_figures_of_a_report_are_marked(tmp_path):
    with chart() as (figure, axes):
        axes.plot([0, 1])
        drawn = to_png(figure)
    for number, data in enumerate((drawn, png(np.zeros((4, 4, 3), np.uint8)))):
        (tmp_path / f"{number}.png").write_bytes(data)
        assert Image.open(io.BytesIO(data)).size and is_own_result(tmp_path / f"{number}.png")


def test_scans_are_not_and_unreadable_files_are_not(tmp_path):
    write_itk(tmp_path / "a.nrrd", volume())
    write_dicom(tmp_path / "series", volume())
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "b.tif")
    for name in ("empty.png", "cut.nii.gz"):
        (tmp_path / name).write_bytes(b"\x1f\x8b" if "gz" in name else b"")
    assert not any(is_own_result(path) for path in tmp_path.rglob("*") if path.is_file())


def test_files_on_which_decoders_stumble_are_nobodys_result_and_are_named(tmp_path):
    """More pixels than Pillow opens, and a compressed stream that breaks off its rules: neither raises an OSError."""
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "large.png")
    head = bytearray((tmp_path / "large.png").read_bytes())
    head[16:24] = struct.pack(">II", 20000, 20000)
    head[29:33] = struct.pack(">I", zlib.crc32(head[12:29]))
    (tmp_path / "large.png").write_bytes(head)
    (tmp_path / "broken.nii.gz").write_bytes(gzip.compress(bytes(10))[:10] + b"\xff" * 90)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "good.png")
    for name, said in (("large.png", "too many pixels"), ("broken.nii.gz", "cannot be read")):
        assert not is_own_result(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name}: .*{said}"):
            LoadScan()(tmp_path / name)
    (tmp_path / "broken.nii.gz").unlink()
    warn_dark([{"image": str(tmp_path / "large.png")}])
    assert len(datalist(tmp_path, "all")) == 2
    assert [item["image"] for item in datalist(tmp_path, "all", on_error="skip")] == [str(tmp_path / "good.png")]
