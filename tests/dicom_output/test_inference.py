"""Inference of a DICOM series leaves a segmentation and a report beside the maps, which refer to the series."""

import csv
import logging
import sys

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

import workflows
from dicom_series import write_series
from dino_uad.errors import explain
from dino_uad.transforms import is_own_result

AFFINE = np.array([[-1.1, 0, 0, 20], [0, -0.9, 0, 18], [0, 0, 3, -5], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    root = tmp_path_factory.mktemp("dicom")
    workflows.run("dpmm", root)
    return root


def series(folder, seed: int = 0, slices: int = 3):
    volume = np.random.default_rng(seed).integers(120, 700, (56, 56, slices))
    volume[14:28, 14:42, 1] = 1500
    return write_series(folder, volume, AFFINE, seed)


def infer(fitted, scans, out, **more) -> dict[str, dict[str, str]]:
    """The rows of ``scores.csv`` by their files."""
    options = {"displayable_configs#false_positive_rate": "10 %", **more}
    workflows.run("dpmm", fitted, "inference", dataset_dir=str(scans), output_dir=str(out), **options)
    logging.disable(logging.NOTSET)
    return listed(out)


def listed(out) -> dict[str, dict[str, str]]:
    with open(out / "scores.csv", newline="", encoding="utf-8") as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


def test_a_series_in_and_its_findings_out(fitted, tmp_path):
    series(tmp_path / "scans" / "one")
    out = tmp_path / "out"
    row = infer(fitted, tmp_path / "scans", out)["one"]
    assert (row["findings_seg"], row["findings_sr"]) == ("one_findings_seg.dcm", "one_findings_sr.dcm")
    label = nib.load(out / "one_label.nii.gz")
    marked = np.asanyarray(label.dataobj) > 0
    assert marked.any()
    segmentation = hd.seg.segread(out / "one_findings_seg.dcm")
    mask = segmentation.get_volume(combine_segments=True)
    assert (mask.array > 0).sum() == marked.sum()
    uids = {dcmread(path).SeriesInstanceUID for path in (tmp_path / "scans" / "one").iterdir()}
    assert {segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID} == uids
    report = hd.sr.srread(out / "one_findings_sr.dcm")
    assert is_own_result(out / "one_findings_seg.dcm") and is_own_result(out / "one_findings_sr.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == segmentation.number_of_segments


def test_a_series_that_lacks_a_slice_gets_no_objects_and_no_sizes(fitted, tmp_path):
    folder = series(tmp_path / "scans" / "gap", slices=6)
    out = tmp_path / "out"
    whole = infer(fitted, tmp_path / "scans", out)["gap"]
    assert float(whole["largest_size"]) > 0 and whole["notes"] == ""
    assert (out / "gap_findings_seg.dcm").exists() and (out / "gap_findings_sr.dcm").exists()
    (lost,) = (path for path in folder.iterdir() if float(dcmread(path).ImagePositionPatient[2]) == -5 + 2 * 3)
    lost.unlink()
    row = infer(fitted, tmp_path / "scans", out)["gap"]
    # The five that are left lie at 0, 3, 9, 12, 15 mm; even steps of 3.75 mm would put the third at 7.5 mm.
    assert "slices not evenly spaced (up to 1.50 mm off; missing slices?)" in row["notes"]
    assert "no DICOM of its findings is written" in row["notes"] and row["status"] == "scored"
    assert (row["largest_size"], row["findings_seg"], row["findings_sr"]) == ("", "", "")
    assert not list(out.glob("*.dcm"))  # nor what the first run wrote of the whole series
    with open(out / "findings.csv", newline="", encoding="utf-8") as stream:
        findings = list(csv.DictReader(stream))
    assert len(findings) == int(row["findings"]) > 0
    for finding in findings:
        assert {finding[name] for name in ("size", "diameter", "world_x", "world_y", "world_z")} == {""}
        assert int(finding["voxels"]) > 0 and float(finding["slice_diameter"]) > 0
    assert "slices not evenly spaced" in (out / "report.html").read_text()


def test_objects_of_one_name_stay_with_their_series(fitted, tmp_path):
    """A second run that scores only one of two series of one name must not write over the other's objects."""
    for seed, folder in enumerate(("a", "b")):
        series(tmp_path / "scans" / folder / "one", seed)
    out = tmp_path / "out"
    infer(fitted, tmp_path / "scans", out)
    second = max(out.glob("one_*_findings_seg.dcm"))
    first = {path: path.read_bytes() for path in out.glob("*.dcm")}
    changed = dcmread(second).ReferencedSeriesSequence[0].SeriesInstanceUID
    for file in (tmp_path / "scans").rglob("*.dcm"):
        if dcmread(file).SeriesInstanceUID == changed:
            file.touch()
    rows = infer(fitted, tmp_path / "scans", out)
    assert {path.name for path in first} == {
        row[key] for row in rows.values() for key in ("findings_seg", "findings_sr")
    }
    assert {dcmread(path).ReferencedSeriesSequence[0].SeriesInstanceUID for path in out.glob("*_seg.dcm")} == {
        dcmread(file).SeriesInstanceUID for file in (tmp_path / "scans").rglob("*.dcm")
    }


def test_a_folder_of_two_series_does_not_keep_the_others_from_being_scored(fitted, tmp_path):
    series(tmp_path / "scans" / "good")
    for seed in (1, 2):
        series(tmp_path / "scans" / "two", seed)
    with pytest.raises(SystemExit) as ended:
        infer(fitted, tmp_path / "scans", tmp_path / "out")
    assert ended.value.code == 3
    rows = listed(tmp_path / "out")
    assert rows["good"]["status"] == "scored" and rows["good"]["findings_sr"]
    assert rows["two"]["status"] == "failed" and "2 stacks of DICOM images" in rows["two"]["reason"]
    with pytest.raises(RuntimeError) as caught:
        infer(fitted, tmp_path / "scans", tmp_path / "raised", on_error="raise")
    assert "2 stacks of DICOM images" in explain(caught.value)


def test_a_highdicom_that_does_not_fit_pydicom_costs_the_objects_and_not_the_run(fitted, tmp_path, monkeypatch):
    """As in an environment with MONAI Label, whose pydicom is older than highdicom's."""
    broken = tmp_path / "site" / "highdicom" / "__init__.py"
    broken.parent.mkdir(parents=True)
    broken.write_text("from pydicom.encaps import what_it_never_had")
    monkeypatch.delitem(sys.modules, "highdicom")
    monkeypatch.syspath_prepend(tmp_path / "site")
    series(tmp_path / "scans" / "one")
    row = infer(fitted, tmp_path / "scans", tmp_path / "out")["one"]
    assert row["status"] == "scored" and row["findings_seg"] == row["findings_sr"] == ""
    assert (tmp_path / "out" / "one_label.nii.gz").is_file()
    assert "cannot be imported (cannot import name 'what_it_never_had'" in row["notes"]
