"""A second run into a folder takes over what would come out the same, and nothing else."""

import logging
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pydicom
import pytest
from inferred import infer, list_in, one_picture, table

import dicom_series
import workflows

OTHER = {
    "precision": {"network_def#backbone#precision": "bfloat16"},
    "preprocessing": {"preprocessing#transforms#3#mode": "range", "preprocessing#transforms#3#window": [0, 300]},
    "inferer": {"inferer#smoothing": 1.0},
    "DICOM output": {"save_dicom": False},
}
SAME = {
    "slices per call": {"inferer#batch_size": 3, "inferer#progress": False},
    "device": {"device": "cpu"},
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("other_settings")
    workflows.run("dpmm", root)
    (root / "new").mkdir()
    shutil.copy(root / "data/test/Ungood/img/u0.png", root / "new")
    infer(root, "once")
    return root


def kept(root: Path, out: str, caplog: pytest.LogCaptureFixture, **settings) -> bool:
    with caplog.at_level(logging.INFO):
        infer(root, out, **settings)
    return "scored already" in caplog.text


@pytest.mark.parametrize("case", OTHER)
def test_what_other_settings_would_score_otherwise_is_scored_again(case, fitted, tmp_path, caplog) -> None:
    out = shutil.copytree(fitted / "once", tmp_path / "out")
    assert not kept(fitted, str(out), caplog, **OTHER[case])
    fresh = infer(fitted, str(tmp_path / "fresh"), **OTHER[case])
    assert [row["image_score"] for row in table(out)] == [row["image_score"] for row in table(fresh)]


@pytest.mark.parametrize("case", SAME)
def test_what_changes_no_result_does_not_count(case, fitted, caplog) -> None:
    assert kept(fitted, "once", caplog, **SAME[case])


def test_another_series_of_a_folder_is_another_scan(fitted, tmp_path) -> None:
    volume = np.random.default_rng(0).integers(20, 120, (60, 60, 3))
    bright = volume.copy()
    bright[20:40, 20:40] = 900
    for number, one in ((1, volume), (2, bright)):
        dicom_series.write_series(tmp_path / "new/scan", one, np.diag([1, 1, 5, 1.0]), seed=number)
    for path in (tmp_path / "new/scan").iterdir():
        image = pydicom.dcmread(path)
        image.SeriesNumber = 1 + int(image.pixel_array.max() > 500)
        image.StudyInstanceUID = "1.2.3"
        image.save_as(path)
    runs = {"dataset_dir": str(tmp_path / "new"), "save_dicom": False}
    both = [(folder, series) for folder in ("one", "two") for series in ("1", "2")][1:]  # "one" has only the second
    found = {}
    for folder, series in both:
        rows = table(infer(fitted, str(tmp_path / folder), **runs, **{"infer_data#series": series}))
        found[folder, series] = rows[0]["image_score"]
    assert found["two", "2"] == found["one", "2"] != found["two", "1"]


def test_a_list_of_an_earlier_version_is_scored_again(tmp_path) -> None:
    """Its rows have states that say nothing of what else an entry holds than its file."""
    first, data = one_picture(tmp_path)
    assert first.unscored(data) == data
    first.add(data[0]["image"], {"scan": {"image_score": 1.0}}, 0.1)
    assert list_in(tmp_path).unscored(data) == []
    with sqlite3.connect(tmp_path / "out/worklist.sqlite") as base:
        base.execute("update scan set state = ?", ("0" * 64,))
    assert list_in(tmp_path).unscored(data) == data
