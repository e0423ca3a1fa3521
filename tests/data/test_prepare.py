"""prepare: labelled volumes to a slice data set that datalist reads."""

import json

import numpy as np
import pytest
from PIL import Image

from dino_uad.data.folder_list import datalist
from dino_uad.data.preparation import prepare
from scans import affine_of, write_nifti


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(8):
        image = np.zeros((16, 20, 6), np.float32)
        image[2:14, 2:18, 1:] = rng.integers(1, 255, (12, 16, 5))
        label = np.zeros_like(image)
        label[6:9, 5:9, 2:4] = k % 2
        write_nifti(tmp_path / "in" / f"Doe_{k}_flair.nii.gz", image, affine_of("LPS"))
        write_nifti(tmp_path / "in" / f"Doe_{k}_label.nii.gz", label, affine_of("LPS"))
    return tmp_path / "in"


def test_slices_are_split_by_patient_and_normal_in_training(source, tmp_path):
    summary = prepare(str(source), str(tmp_path / "out"))
    assert summary["patients"] == {"train": 5, "valid": 1, "test": 2}
    lists = {split: datalist(tmp_path / "out", split) for split in ("train", "valid", "test")}
    assert not any(item["anomalous"] for item in lists["train"])
    for split, items in lists.items():
        wanted = sum(summary["slices"].get(f"{split}/{kind}", 0) for kind in ("good", "Ungood"))
        assert len(items) == wanted > 0
    assert sum(map(len, lists.values())) == 8 * 5 - summary_left_out(summary)
    groups = [{item["group"] for item in items} for items in lists.values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert json.loads((tmp_path / "out/dataset.json").read_text())["slices"] == summary["slices"]


def summary_left_out(summary):
    """Annotated slices of training volumes: two in each volume with an odd number."""
    annotated = summary["slices"].get("test/Ungood", 0) + summary["slices"].get("valid/Ungood", 0)
    return 4 * 2 - annotated


def test_slice_is_upright_and_has_the_volumes_grey_values(source, tmp_path):
    import nibabel as nib

    prepare(str(source), str(tmp_path / "out"))
    path = next((tmp_path / "out/test").rglob("img/*.png"))
    name, index = path.stem.rsplit("_", 1)
    volume = nib.load(source / f"{name}_flair.nii.gz").get_fdata()
    np.testing.assert_array_equal(np.asarray(Image.open(path)), volume[:, :, int(index)].T)


def test_anonymous_names(source, tmp_path):
    prepare(str(source), str(tmp_path / "out"), anonymous_names=True)
    assert not list((tmp_path / "out").rglob("*Doe*"))
    assert "Doe" not in (tmp_path / "out/dataset.json").read_text()


def test_same_seed_same_bytes(source, tmp_path):
    for out in ("a", "b"):
        prepare(str(source), str(tmp_path / out), size=28)
    files = {out: sorted(p.relative_to(tmp_path / out) for p in (tmp_path / out).rglob("*.*")) for out in "ab"}
    assert files["a"] == files["b"]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files["a"])


def test_full_folder_is_refused_and_nothing_is_left_of_a_failure(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    with pytest.raises(ValueError, match="not empty"):
        prepare(str(source), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="no normal slice"):
        prepare(str(source), str(tmp_path / "new"), min_foreground=0.99)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_without_anomalies_there_is_no_test_split(source, tmp_path):
    for path in source.glob("*label*"):
        path.unlink()
    assert set(prepare(str(source), str(tmp_path / "out"))["volumes"]) == {"train", "valid"}
