"""A run's tables, through the bundle's own inference.json: rows, order, broken files, what a second run does."""

import json
import logging
import os
import shutil
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from inferred import infer, table
from PIL import Image

import dicom_series
import dino_uad
import workflows
from dino_uad.detector import read_threshold
from dino_uad.errors import explain
from dino_uad.findings import components
from dino_uad.inferers.slice_summary import predict
from dino_uad.worklist import RunStore, Worklist
from dino_uad.worklist.tables import write_tables

PATHS = ("file", "anomaly_map", "label_map", "reason")


def whole(folder: Path) -> dict:
    return json.loads((folder / "scores.json").read_text())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """A fitted model, and a folder of new files: two pictures, a volume, and a file that is none."""
    root = tmp_path_factory.mktemp("worklist")
    with pytest.MonkeyPatch.context() as patch:  # two validation scans are all there is to compare with
        patch.setattr("dino_uad.detector.seen.SeenScans.fewest", 2)
        workflows.run("dpmm", root)
    new = root / "new"
    shutil.copytree(root / "data/test/good/img", new / "good")
    shutil.copy(root / "data/test/Ungood/img/u0.png", new)
    scan = np.random.default_rng(0).integers(20, 120, (60, 48, 5)).astype(np.float32)
    scan[20:30, 20:30, 1] = 255
    scan[..., 4] = 0
    nib.save(nib.Nifti1Image(scan, np.diag([-1.0, -1.0, 5.0, 1])), new / "head.nii.gz")
    (new / "broken.png").write_bytes(b"\x89PNG and no more")
    return root


@pytest.fixture(scope="module")
def results(fitted) -> Path:
    return infer(fitted, status=3)


def test_every_file_has_a_row_the_worst_first_and_broken_ones_their_reason(results) -> None:
    rows = table(results)
    assert {row["file"] for row in rows} == {"u0.png", "good/g0.png", "good/g1.png", "head.nii.gz", "broken.png"}
    scores = [float(row["image_score"]) for row in rows[:-1]]
    assert scores == sorted(scores, reverse=True) and {rows[0]["file"], rows[1]["file"]} == {"u0.png", "head.nii.gz"}
    assert rows[-1]["status"] == "failed" and "broken.png: cannot be read" in rows[-1]["reason"]
    whole = json.loads((results / "scores.json").read_text())
    assert (whole["scored"], whole["failed"]) == (4, 1)
    assert [scan["file"] for scan in whole["scans"]] == [row["file"] for row in rows]
    assert whole["model"]["method"] == "DPMMHead" and "cannot promise 5%" in " ".join(whole["calibration"])


def test_numbers_are_those_of_the_saved_maps(fitted, results) -> None:
    row = next(row for row in table(results) if row["file"] == "u0.png")
    scores = np.asarray(Image.open(results / row["anomaly_map"]))
    label = np.asarray(Image.open(results / row["label_map"]))
    high, low = (read_threshold(fitted / "models/model.pt", point) for point in ("1 in 4 normal scans", 0.005))
    assert ((label > 0) == (components(scores, np.float32(high), np.float32(min(high, low)))[0] > 0)).all()
    found = [finding for finding in table(results, "findings") if finding["file"] == "u0.png"]
    assert len(found) == int(row["findings"]) and sum(int(one["voxels"]) for one in found) == (label > 0).sum()
    peak = found[0]
    assert scores[int(peak["voxel_y"]), int(peak["voxel_x"])] == scores.max() == pytest.approx(float(peak["peak"]))
    # Two validation images promise one false alarm in three, no less.
    assert float(row["p_value"]) == pytest.approx(1 / 3) and row["flagged_5"] == row["flagged_1"] == ""


def test_a_volume_has_a_row_a_slice_and_its_findings_lie_in_space(results) -> None:
    scan = next(row for row in table(results) if row["file"] == "head.nii.gz")
    slices = [row for row in table(results, "slices") if row["file"] == "head.nii.gz"]
    assert [int(row["slice"]) for row in slices] == [1, 2, 3, 4, 5]
    assert (scan["slices"], scan["slices_scored"], slices[4]["image_score"]) == ("5", "4", "")
    highest = max(slices[:4], key=lambda row: float(row["image_score"]))
    assert highest["slice"] == "2" and highest["image_score"] == scan["image_score"]
    finding = next(row for row in table(results, "findings") if row["file"] == "head.nii.gz")
    voxel = [int(finding[f"voxel_{axis}"]) for axis in "xyz"]
    world = [float(finding[f"world_{axis}"]) for axis in "xyz"]
    assert world == [-voxel[0], -voxel[1], 5 * voxel[2]] and int(finding["slice"]) == voxel[2] + 1 == 2
    scores = nib.load(results / scan["anomaly_map"]).get_fdata()
    assert scores[tuple(voxel)] == scores.max()
    assert float(finding["size"]) == pytest.approx(int(finding["voxels"]) * 5 / 1000) and finding["unit"] == "ml"


def test_a_second_run_scores_only_what_is_new_changed_or_gone(fitted, tmp_path, caplog) -> None:
    new = Path(shutil.copytree(fitted / "new", tmp_path / "new"))
    results = infer(fitted, str(tmp_path / "out"), status=3, dataset_dir=str(new))
    before = table(results)
    stamps = {path.name: path.stat().st_mtime_ns for path in results.glob("*_anomaly*")}
    Image.fromarray(np.full((56, 56), 90, np.uint8)).save(new / "late.png")
    shutil.copy(fitted / "data/test/good/img/g1.png", new / "broken.png")
    (results / "g0_label.png").unlink()
    with caplog.at_level(logging.INFO):
        infer(fitted, str(results), dataset_dir=str(new))
    assert "3 of 6 files are scored already" in caplog.text
    touched = {path.name for path in results.glob("*_anomaly*") if stamps.get(path.name) != path.stat().st_mtime_ns}
    assert touched == {"late_anomaly.tif", "broken_anomaly.tif", "g0_anomaly.tif"}
    after = {row["file"]: row for row in table(results)}
    assert len(after) == 6 and all(row["status"] == "scored" for row in after.values())
    assert "spread of intensities" in after["late.png"]["unlike"]  # one grey level; the fit saw noise
    kept = [row for row in before if row["file"] in ("u0.png", "head.nii.gz", "good/g1.png")]
    assert [after[row["file"]] for row in kept] == kept
    infer(fitted, str(results), dataset_dir=str(new))  # nothing is new: the tables are there all the same
    assert {row["file"]: row for row in table(results)} == after
    rate = {"displayable_configs#false_positive_rate": "1 %"}
    infer(fitted, str(results), dataset_dir=str(new), **rate)
    assert int(next(r for r in table(results) if r["file"] == "u0.png")["findings"]) > 0


def test_a_scan_of_which_nothing_is_scored_is_not_taken_for_one_without_findings(fitted, tmp_path) -> None:
    nib.save(nib.Nifti1Image(np.full((60, 48, 5), 7, np.float32), np.eye(4)), tmp_path / "blank.nii.gz")
    (row,) = table(infer(fitted, "blank", status=3, dataset_dir=str(tmp_path)))
    assert row["status"] == "failed" and row["findings"] == row["image_score"] == ""
    assert row["reason"].startswith("blank.nii.gz: no slice has enough foreground to be scored")


def test_a_scan_of_fewer_pixels_than_patches_is_told_of(fitted, tmp_path) -> None:
    """56 pixels are 4 patches of 14."""
    for side in (1, 3, 4):
        Image.fromarray(np.full((side, 9), 200, np.uint8)).save(tmp_path / f"{side}.png")
    rows = {row["file"]: row["notes"] for row in table(infer(fitted, "tiny", dataset_dir=str(tmp_path)))}
    assert rows["1.png"] == "only 9 x 1 pixels, enlarged to 56 x 56: is this a scan?"
    assert rows["3.png"].startswith("only 9 x 3 pixels") and rows["4.png"] == ""


def test_on_error_raise_ends_the_run_with_the_reason(fitted) -> None:
    (fitted / "new/bad.png").write_bytes(b"")
    try:
        with pytest.raises(RuntimeError) as caught:
            infer(fitted, "raised", on_error="raise")
        assert not isinstance(caught.value, SystemExit) and "bad.png: the file is empty" in explain(caught.value)
    finally:
        (fitted / "new/bad.png").unlink()


def test_anonymous_names_leave_no_name_in_any_file(fitted) -> None:
    (fitted / "new/secret.png").write_bytes(b"no picture")
    try:
        out = infer(fitted, "anonymous", status=3, anonymous_names=True)
    finally:
        (fitted / "new/secret.png").unlink()
    for path in out.iterdir():
        assert not any(name in path.read_bytes() for name in (b"secret", b"u0.png", b"head.nii", bytes(fitted)))
    assert all(row["file"].startswith("scan_") for row in table(out))


def test_numbered_findings_of_hysteresis_and_smallest_size(fitted) -> None:
    options = {"false_positive_rate": "1 %", "grow": "5 %", "min_size": "4 px", "output": "numbered findings"}
    options = {f"displayable_configs#{key}": value for key, value in options.items()}
    out = infer(fitted, "numbered", dataset_dir=str(fitted / "data/test/Ungood/img"), **options)
    high, low = (read_threshold(fitted / "models/model.pt", rate) for rate in (0.01, 0.05))
    row = next(row for row in table(out) if row["file"] == "u0.png")
    numbers, scores = (np.asarray(Image.open(out / row[key])) for key in ("label_map", "anomaly_map"))
    assert set(np.unique(numbers)) == {0, *range(1, int(row["findings"]) + 1)}
    for finding in (one for one in table(out, "findings") if one["file"] == "u0.png"):
        inside = scores[numbers == int(finding["finding"])]
        assert len(inside) == int(finding["voxels"]) >= 4
        assert inside.min() >= np.float32(low) and inside.max() >= np.float32(high)


def test_the_memory_of_a_run_does_not_grow_with_its_rows(tmp_path) -> None:
    peaks = []
    for count in (100, 3000):
        store = RunStore(tmp_path / str(count), "run")
        for i in range(count):
            row = {"file": f"{i}.nii", "status": "scored", "image_score": (i * 37 % count) / count, "findings": 0}
            store.add(f"/{i}", "state", row, [{"slice": k, "image_score": 0.5} for k in range(20)], [], b"x" * 1000)
        tracemalloc.start()
        write_tables(store, tmp_path / str(count), {"model": {}})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(json.loads((tmp_path / str(count) / "scores.json").read_text())["scans"]) == count
    assert peaks[1] < peaks[0] + 200_000, peaks


def test_no_name_is_a_formula_and_every_name_comes_back(tmp_path) -> None:
    """A spreadsheet runs a cell that starts with =, +, - or @."""
    names = ['=cmd|"/c calc"!A1.png', "+1.png", "-2,3.png", "@x;y.png", "\tz.png", "ü 中.png", 'a"b.png', "c\nd.png"]
    store = RunStore(tmp_path, "run")
    for i, name in enumerate(names):
        store.add(name, "", {"file": name, "status": "scored", "image_score": -float(i), "anomaly_map": name})
    store.add("bad", "", {"file": "=bad.png", "status": "failed", "reason": "=bad.png: cannot be read"})
    write_tables(store, tmp_path, {"model": {}})
    rows = table(tmp_path)
    assert [Path(row["file"]) for row in rows] == [*map(Path, names), Path("=bad.png")]
    assert not any(value.startswith(tuple("=+-@\t")) for row in rows for key, value in row.items() if key in PATHS)
    assert rows[2]["image_score"] == "-2" and [scan["file"] for scan in whole(tmp_path)["scans"]][:8] == names


def test_no_name_breaks_a_line_of_the_log(fitted, tmp_path, caplog) -> None:
    (tmp_path / "new").mkdir()
    shutil.copy(fitted / "new/u0.png", tmp_path / "new/a\nb.png")
    (tmp_path / "new/c\nd\u202e.png").write_bytes(b"no picture")
    with caplog.at_level(logging.INFO):
        out = infer(fitted, str(tmp_path / "out"), status=3, dataset_dir=str(tmp_path / "new"))
    told = [record.getMessage() for record in caplog.records if ".png" in record.getMessage()]
    assert all(line.isprintable() for line in told), told
    assert any(r"a\nb_label.png" in line for line in told)
    assert any("not scored" in line and r"c\nd\u202e.png" in line for line in told)
    assert [row["file"] for row in table(out)] == ["a\nb.png", "c\nd\u202e.png"]  # as they are
    # Two validation images cannot promise one finding in 10 scans; nobody chose that.
    told = whole(out)["calibration"]
    assert any("1 in 4 normal scans" in line for line in told) and not any("1 finding in 10" in line for line in told)


def test_a_damaged_list_is_named(tmp_path) -> None:
    (tmp_path / "worklist.sqlite").write_bytes(b"not a data base" * 100)
    with pytest.raises(ValueError, match=r"worklist\.sqlite: damaged"):
        RunStore(tmp_path, "run")


QUERIES = {
    "states": lambda store: list(store.states()),
    "saved": lambda store: list(store.saved()),
    "rows": lambda store: list(store.rows(pictures=True)),
    "count": lambda store: store.count("scored"),
    "scores": lambda store: list(store.scores()),
    "score_range": lambda store: store.score_range(),
}


@pytest.mark.parametrize("damage", ["pages", "no text", "no JSON"])
@pytest.mark.parametrize("query", QUERIES)
def test_a_list_that_is_damaged_further_down_is_named(tmp_path, query, damage) -> None:
    store, path = RunStore(tmp_path, "run"), tmp_path / "worklist.sqlite"
    for i in range(40):
        store.add(f"/{i}", "state", {"file": f"{i}.nii", "status": "scored", "image_score": 1.0}, picture=bytes(900))
    store.close()
    data, mark = path.read_bytes(), b'{"file": "7.nii"'
    if damage == "pages":
        path.write_bytes(data[:8192] + b"\xff" * (len(data) - 8192))
    else:
        assert data.count(mark) == 1
        path.write_bytes(data.replace(mark, (b"\xff" if damage == "no text" else b"[") * len(mark)))
    again = RunStore(tmp_path, "run")
    if damage == "pages" or query in ("states", "saved", "rows"):
        with pytest.raises(ValueError, match=r"worklist\.sqlite: damaged.*remove it, and all files are scored again"):
            QUERIES[query](again)
    else:
        QUERIES[query](again)


def test_a_full_disk_is_no_damage(tmp_path) -> None:
    store = RunStore(tmp_path, "run")
    store.add("first.png", "1", {"file": "first.png", "status": "scored", "image_score": 1.0})
    store._base.execute("pragma max_page_count = 8")
    with pytest.raises(OSError, match=r"worklist\.sqlite .*full.*; free space"):
        store.add("a.png", "1", {"status": "scored", "image_score": 1.0}, picture=bytes(100_000))
    store.close()
    (tmp_path / "worklist.sqlite").rename(tmp_path / "moved")
    (tmp_path / "worklist.sqlite").mkdir()
    with pytest.raises(OSError, match="choose another folder"):
        RunStore(tmp_path, "run")


def test_the_summary_of_a_slice_is_what_the_network_says(fitted) -> None:
    detector = dino_uad.load(
        workflows.BUNDLES / "dpmm",
        **{
            key.replace("#", "__"): value
            for key, value in workflows.overrides("dpmm", fitted, "inference").items()
            if key not in ("bundle_root", "debug", "output_dir", "dataset_dir")
        },
    )
    device = next(detector.network.parameters()).device
    image = torch.rand(2, 1, 56, 56, generator=torch.Generator().manual_seed(0)).to(device)
    maps, numbers = predict(detector.network, image)
    said = {key: value.cpu() for key, value in detector.network.predict(image).items()}
    assert torch.equal(numbers[:, 0].cpu(), said["image_score"]) and torch.equal(maps.cpu(), said["pred"])
    assert numbers[:, 2:].diff(dim=1).le(0).all() and numbers.shape == (2, 2 + len(detector.network.thresholds))


def test_images_in_formats_that_are_not_read_are_listed_as_failed(fitted, tmp_path) -> None:
    shutil.copy(fitted / "new/u0.png", tmp_path / "sub0.png")
    picture = Image.open(tmp_path / "sub0.png")
    for name in ("sub1.webp", "sub2.webp", "sub0.webp", "more/sub0.webp"):  # the third is another form of sub0.png
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / name)
    nib.save(nib.Nifti1Pair(np.ones((4, 4, 4), np.int16), np.eye(4)), tmp_path / "pair.img")
    for name in ("reg.mat", "notes.txt", "surface.stl"):
        (tmp_path / name).write_text("1 0 0 0")
    rows = {row["file"]: row for row in table(infer(fitted, "unread", status=3, dataset_dir=str(tmp_path)))}
    assert [name for name, row in rows.items() if row["status"] == "scored"] == ["sub0.png"]
    failed = {name: row["reason"] for name, row in rows.items() if row["status"] == "failed"}
    assert set(failed) == {"sub1.webp", "sub2.webp", "more/sub0.webp", "pair.img"}
    assert all(f"{name}: not a supported file type. Expected a picture" in reason for name, reason in failed.items())
    only = infer(fitted, "chosen", dataset_dir=str(tmp_path), **{"infer_data#pattern": "*.png"})
    assert [row["file"] for row in table(only)] == ["sub0.png"]


def test_nothing_is_left_of_a_scan_that_fails(fitted, tmp_path) -> None:
    """Neither what this run would save of a blank scan, nor what an earlier one, or another model, saved of it."""
    new = tmp_path / "new"
    series = dicom_series.write_series(new / "s", scan := nib.load(fitted / "new/head.nii.gz").get_fdata(), np.eye(4))
    for name in ("a/p.nii.gz", "b/p.nii.gz"):  # equal names: one of them gets a digest
        (new / name).parent.mkdir()
        shutil.copy(fitted / "new/head.nii.gz", new / name)
    out = infer(fitted, str(tmp_path / "out"), dataset_dir=str(new))
    before = {path.name for path in out.iterdir()}
    saved = {row["file"]: {row["anomaly_map"], row["label_map"]} for row in table(out)}
    dicom = {name for name in before if name.endswith(".dcm")}
    assert dicom and set().union(*saved.values(), dicom) <= before
    nib.save(nib.Nifti1Image(np.zeros_like(scan), np.eye(4)), new / "a/p.nii.gz")
    (new / "b/p.nii.gz").write_bytes(b"no scan")
    for file in series.iterdir():
        file.unlink()
    dicom_series.write_series(series, np.zeros_like(scan), np.eye(4))
    infer(fitted, str(out), status=3, dataset_dir=str(new))
    assert {row["status"] for row in table(out)} == {"failed"}
    assert before - {path.name for path in out.iterdir()} == set().union(*saved.values(), dicom)


def test_a_file_that_failed_and_is_gone_fails_no_later_run(fitted, tmp_path) -> None:
    """Nor does one of another folder whose results lie here, too; what is listed of earlier runs says so."""
    new, other, out = tmp_path / "new", tmp_path / "other", str(tmp_path / "out")
    for place in (new / "stays.png", new / "goes.png", other / "more.png"):
        place.parent.mkdir(exist_ok=True)
        shutil.copy(fitted / "new/u0.png", place)
    for name in ("bad.png", "worse.png"):
        (new / name).write_bytes(b"\x89PNG and no more")
    infer(fitted, out, status=3, dataset_dir=str(new))
    assert not any(row["notes"] for row in table(tmp_path / "out"))
    (new / "bad.png").unlink()
    infer(fitted, out, dataset_dir=str(other))
    rows = {row["file"]: (row["status"], row["notes"]) for row in table(tmp_path / "out")}
    elsewhere = "of an earlier run: not among the files of this one"
    assert rows.pop("more.png") == ("scored", "") and rows.pop("worse.png") == ("failed", elsewhere)
    assert rows == dict.fromkeys(("stays.png", "goes.png"), ("scored", elsewhere))
    assert whole(tmp_path / "out")["failed"] == 1
    assert whole(tmp_path / "out")["this_run"] == {"scored": 1, "failed": 0, "passed_over": 0}
    assert "3 rows of this list: of earlier runs" in (tmp_path / "out/report.html").read_text()
    (new / "worse.png").unlink()
    (new / "goes.png").unlink()
    infer(fitted, out, dataset_dir=str(new))
    rows = {row["file"]: (row["status"], row["notes"]) for row in table(tmp_path / "out")}
    assert rows == {
        "stays.png": ("scored", ""),
        "goes.png": ("scored", "of an earlier run: the file is gone"),
        "more.png": ("scored", elsewhere),
    }
    assert whole(tmp_path / "out")["failed"] == 0


@pytest.mark.parametrize("anonymous", [False, True])
def test_only_failures_of_this_run_are_its_exit_status(tmp_path, anonymous) -> None:
    (tmp_path / "model.pt").write_bytes(b"model")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")

    def status(*names: str) -> int | None:
        worklist = Worklist(tmp_path / "out", tmp_path / "model.pt", tmp_path, anonymous_names=anonymous)
        for item in worklist.unscored([{"image": str(tmp_path / name)} for name in names]):
            worklist.fail(item["image"], "cannot be read")
        worklist.start()
        try:
            worklist.exit()
        except SystemExit as ended:
            return ended.code
        return None

    assert status("a.png") == status("b.png") == 3 and status() is None
    (tmp_path / "a.png").unlink()
    assert status() is None
    left = RunStore(tmp_path / "out", Worklist(tmp_path, tmp_path / "model.pt", anonymous_names=anonymous).store.run)
    assert left.count("failed") == (2 if anonymous else 1)  # nobody knows which file an anonymous one was


def test_results_of_other_files_of_a_name_stay(fitted, tmp_path) -> None:
    new = tmp_path / "new"
    for name in ("a/p.png", "b/p.png"):
        (new / name).parent.mkdir(parents=True)
        shutil.copy(fitted / "new/u0.png", new / name)
    out = infer(fitted, str(tmp_path / "out"), dataset_dir=str(new))
    rows = {row["file"]: row for row in table(out)}
    (new / "b/p.png").write_bytes(b"no picture")
    infer(fitted, str(out), status=3, dataset_dir=str(new))
    assert not (out / rows["b/p.png"]["label_map"]).exists()
    assert (out / rows["a/p.png"]["label_map"]).exists() and (out / rows["a/p.png"]["anomaly_map"]).exists()


def test_tables_of_names_that_are_not_utf8_are_utf8_and_tell_them(fitted, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(logging.Logger, "handle", lambda *_: None)  # pytest-xdist cannot send such names
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "new").mkdir()
    shutil.copy(fitted / "new/u0.png", tmp_path / "new" / name)
    (tmp_path / "new" / os.fsdecode(b"\xfcbel.png")).write_bytes(b"no picture")
    out = infer(fitted, str(tmp_path / "out"), status=3, dataset_dir=str(tmp_path / "new"))
    for file in ("scores.csv", "findings.csv", "scores.json", "report.html"):
        (out / file).read_bytes().decode("utf-8")
    rows = table(out)
    assert [row["file"] for row in rows] == [r"caf\xe9.png", r"\xfcbel.png"]
    assert rows[0]["label_map"] == r"caf\xe9_label.png" and r"\xfcbel.png: cannot be read" in rows[1]["reason"]
    assert whole(out)["scans"][0]["file"] == name  # as Python opens it
    assert r"caf\\xe9.png" in (out / "report.html").read_text(encoding="utf-8")
