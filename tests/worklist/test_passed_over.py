"""A scan whose name says annotation is not scored; the list says which, and why, and how to have it scored."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from inferred import infer, table

import workflows

CALLED = ["thorax_roi_scan.nii.gz", "pat7_seg.nii.gz", "gt.nii.gz"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("passed")
    workflows.run("dpmm", root)
    (root / "new").mkdir()
    for seed, name in enumerate(["head.nii.gz", *CALLED]):
        scan = np.random.default_rng(seed).integers(20, 120, (40, 36, 3)).astype(np.float32)
        nib.save(nib.Nifti1Image(scan, np.eye(4)), root / "new" / name)
    (root / "new" / "notes.txt").write_text("no image")
    shutil.copy(root / "new" / "gt.nii.gz", root / "new" / "head_seg.nii.gz")  # the mask of a scan that is scored
    return root


def test_list_json_and_report_name_them_all(fitted, tmp_path) -> None:
    out = infer(fitted, str(tmp_path))
    rows = table(out)
    assert rows[0]["file"] == "head.nii.gz" and {row["file"] for row in rows[1:]} == set(CALLED)
    for row in rows[1:]:
        assert (row["status"], row["image_score"], row["findings"]) == ("passed over", "", "")
        assert row["reason"].startswith(f"{row['file']}: passed over: it is called, or looks, as annotations do")
    whole = json.loads((out / "scores.json").read_text())
    assert (whole["scored"], whole["failed"], whole["passed_over"]) == (1, 0, 3)
    assert [scan["file"] for scan in whole["scans"]] == [row["file"] for row in rows]
    report = (out / "report.html").read_text()
    assert "3 files were passed over and not scored" in report and all(name in report for name in CALLED)
    # What the reason says helps, in the same folder.
    infer(fitted, str(tmp_path), **{"infer_data#image_pattern": "*_roi_scan*"})
    status = {row["file"]: row["status"] for row in table(out)}
    assert status.pop("thorax_roi_scan.nii.gz") == status.pop("head.nii.gz") == "scored"
    assert set(status.values()) == {"passed over"} and len(status) == 2
    infer(fitted, str(tmp_path))  # and is not undone by a run that passes over it again
    assert {row["file"]: row["status"] for row in table(out)}["thorax_roi_scan.nii.gz"] == "scored"


def test_no_name_is_told_of_anonymous_scans(fitted, tmp_path) -> None:
    out = infer(fitted, str(tmp_path), anonymous_names=True)
    assert [row["status"] for row in table(out)] == ["scored", *["passed over"] * 3]
    for path in out.iterdir():
        assert not any(name.partition(".")[0].encode() + b"." in path.read_bytes() for name in CALLED), path.name


def test_results_among_the_scans_are_not_listed(fitted, tmp_path) -> None:
    shutil.copy(fitted / "new/head.nii.gz", tmp_path)
    for _ in range(2):
        out = infer(fitted, str(tmp_path), dataset_dir=str(tmp_path), resume=False)
    assert [row["file"] for row in table(out)] == ["head.nii.gz"]
