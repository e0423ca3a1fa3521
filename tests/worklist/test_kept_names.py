"""One output folder, several runs: a refused run changes nothing, and no map of another scan is ever overwritten."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from inferred import infer, list_in, one_picture, table

import workflows
from dino_uad.errors import explain
from dino_uad.transforms import SaveMapd
from dino_uad.worklist import RunStore

REFUSED = {"image_size": [112, 112]}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("names")
    workflows.run("dpmm", root)
    for seed, folder in enumerate(("dA", "dB")):
        scan = np.random.default_rng(seed).integers(20, 120, (40, 36, 3)).astype(np.float32)
        (root / folder).mkdir()
        nib.save(nib.Nifti1Image(scan, np.eye(4)), root / folder / "scan.nii.gz")
    return root


def one(root: Path, folder: str, out: Path, **more) -> None:
    infer(root, str(out), dataset_dir=str(root / folder), **more)


def refused(root: Path, folder: str, out: Path, **more) -> None:
    with pytest.raises(RuntimeError) as caught:
        one(root, folder, out, **REFUSED, **more)
    assert "does not fit this network" in explain(caught.value)


def test_a_refused_run_changes_nothing_and_the_next_overwrites_nobody(fitted, tmp_path) -> None:
    one(fitted, "dA", tmp_path)
    one(fitted, "dB", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len({row["anomaly_map"] for row in table(tmp_path)}) == 2
    refused(fitted, "dB", tmp_path)
    refused(fitted, "dB", tmp_path, resume=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    one(fitted, "dB", tmp_path, resume=False)
    maps = {path.name: path.read_bytes() for path in tmp_path.glob("*.nii.gz")}
    assert maps == {name: content for name, content in before.items() if name.endswith(".nii.gz")}


def test_another_model_or_other_options_take_no_name_of_another_scan(fitted, tmp_path) -> None:
    one(fitted, "dA", tmp_path)
    (first,) = table(tmp_path)
    before = (tmp_path / first["label_map"]).read_bytes()
    one(fitted, "dB", tmp_path, **{"displayable_configs#false_positive_rate": "5 %"})
    (second,) = table(tmp_path)
    assert not {first["anomaly_map"], first["label_map"]} & {second["anomaly_map"], second["label_map"]}
    assert (tmp_path / first["label_map"]).read_bytes() == before
    one(fitted, "dA", tmp_path, **{"displayable_configs#false_positive_rate": "5 %"})
    assert {row["label_map"] for row in table(tmp_path)} == {first["label_map"], second["label_map"]}


def test_a_refused_run_leaves_nothing_in_an_empty_folder(fitted, tmp_path) -> None:
    refused(fitted, "dB", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_scans_of_one_name_are_told_apart(fitted, tmp_path) -> None:
    one(fitted, "dA", tmp_path)
    assert [row["file"] for row in table(tmp_path)] == ["scan.nii.gz"]
    one(fitted, "dB", tmp_path)
    expected = {str(fitted / folder / "scan.nii.gz") for folder in ("dA", "dB")}
    assert {row["file"] for row in table(tmp_path)} == expected
    assert {row["file"] for row in table(tmp_path, "slices")} == expected
    assert {scan["file"] for scan in json.loads((tmp_path / "scores.json").read_text())["scans"]} == expected
    report = (tmp_path / "report.html").read_text()
    assert all(json.dumps(name) in report for name in expected)


def test_anonymous_scans_of_one_name_stay_anonymous(fitted, tmp_path) -> None:
    one(fitted, "dA", tmp_path, anonymous_names=True)
    one(fitted, "dB", tmp_path, anonymous_names=True)
    names = {row["file"] for row in table(tmp_path)}
    assert len(names) == 2 and all(name.startswith("scan_") for name in names)


def test_a_file_that_is_replaced_while_it_is_scored_is_scored_again(tmp_path) -> None:
    first, data = one_picture(tmp_path)
    assert first.unscored(data) == data
    (tmp_path / "a.png").write_bytes(b"newer")
    first.add(str(tmp_path / "a.png"), {"scan": {"image_score": 1.0}}, 0.1)
    assert list_in(tmp_path).unscored(data) == data


NRRD = "NRRD0004\ntype: float\n"
SEVERAL = {  # header or folder, its text, and a file in which the values lie
    "mhd": ("a.mhd", "ObjectType = Image\nElementDataFile = a.raw\n", "a.raw"),
    "mhd list": ("a.mhd", "ElementDataFile = LIST\nb.raw\na.raw\n", "a.raw"),
    "mhd pattern": ("a.mhd", "ElementDataFile = s%03d.raw 1 2 1\n", "s002.raw"),
    "mhd elsewhere": ("a.mhd", f"{'Comment = x' * 800}\nElementDataFile = more/a.raw\n", "more/a.raw"),
    "nhdr": ("a.nhdr", f"{NRRD}data file: a.raw\n\n", "a.raw"),
    "nrrd": ("a.nrrd", f"{NRRD}datafile: a.raw\n", "a.raw"),
    "pair": ("a.hdr", "header", "a.img"),
    "folder": ("a", None, "a/1.dcm"),
    "folder in it": ("a", None, "a/more/1.dcm"),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_values_in_another_file_that_are_replaced_are_scored_again(case, tmp_path) -> None:
    scan, text, values = SEVERAL[case]
    (tmp_path / "model.pt").write_bytes(b"model")
    (tmp_path / values).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / values).write_bytes(b"old")
    if text is not None:
        (tmp_path / scan).write_text(text)
    data = [{"image": str(tmp_path / scan)}]
    first = list_in(tmp_path)
    assert first.unscored(data) == data
    first.add(str(tmp_path / scan), {"scan": {"image_score": 1.0}}, 0.1)
    again = list_in(tmp_path)
    assert again.unscored(data) == []
    (tmp_path / values).write_bytes(b"newer")
    assert again.unscored(data) == data


@pytest.mark.parametrize("text", ["s%s%d.raw 1 2", "s%d.raw 1 99999999999999", "\0", "LIST"])
def test_a_header_that_makes_no_sense_ends_no_run_before_its_reader_says_so(text, tmp_path) -> None:
    (tmp_path / "model.pt").write_bytes(b"model")
    (tmp_path / "a.mhd").write_text(f"ElementDataFile = {text}\n")
    data = [{"image": str(tmp_path / "a.mhd")}, {"image": str(tmp_path / "gone.mhd")}]
    assert list_in(tmp_path).unscored(data) == data


def test_a_folder_that_was_removed_is_named_as_the_cause(tmp_path) -> None:
    store = RunStore(tmp_path / "out", "run")
    row = {"file": "a", "status": "scored", "image_score": 1.0}
    store.add("a", "", row)
    shutil.rmtree(tmp_path / "out")
    os.mkdir(tmp_path / "out")
    with pytest.raises(OSError, match=r"worklist\.sqlite: it, or its folder, was removed or moved while the run went"):
        store.add("b", "", row)


def test_two_runs_at_a_time_in_one_folder_give_a_name_to_one_scan(tmp_path) -> None:
    """As jobs of a cluster do, one a patient, each with a file of the same name; neither knows the other's rows yet."""
    sources = ["/data/dA/scan.nii.gz", "/data/dB/scan.nii.gz"]
    savers, stores = [SaveMapd("pred", tmp_path) for _ in sources], [RunStore(tmp_path, "run") for _ in sources]
    for saver, store in zip(savers, stores, strict=True):
        saver.claim_names(store.claim)
    pairs = list(zip(savers, sources, strict=True))
    names = [saver.path(source, "anomaly", ".nii.gz").name for saver, source in pairs]
    digest = hashlib.sha256(sources[1].encode()).hexdigest()[:8]
    assert names == ["scan_anomaly.nii.gz", f"scan_{digest}_anomaly.nii.gz"]
    assert [
        saver.path(source, "anomaly", ".nii.gz").name for saver, source in zip(savers, sources, strict=True)
    ] == names
    again = SaveMapd("pred", tmp_path)
    again.claim_names(RunStore(tmp_path, "another").claim)
    assert again.path(sources[0], "anomaly", ".nii.gz").name == names[0]
    assert b"dA" not in (tmp_path / "worklist.sqlite").read_bytes()  # an anonymous run tells no names
