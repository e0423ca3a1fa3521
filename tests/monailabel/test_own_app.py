"""Our own app in a real server, all bundles in it: which scan it offers next, and what it says of a scan."""

import csv
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from drive import BUNDLES, Server, ServerError
from small_heads import SHAPE, canonical_affine, head, write_oriented

from scans import write_nifti

ROOT = Path(__file__).parents[2]
FINEST = {"false_positive_rate": "10 %", "output": "numbered findings"}


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Four heads, of which one has a lesion."""
    folder = tmp_path_factory.mktemp("patients")
    for seed, lesion in ((30, False), (31, True), (32, False), (33, False)):
        write_oriented(folder / f"p{seed}.nii.gz", head(seed, lesion), "RAS")
    return folder


@pytest.fixture(scope="module")
def listed(app, patients, command_line, tmp_path_factory):
    """The rows of ``scores.csv`` on the command line: bundle -> image -> row."""
    rows = {}
    for name in BUNDLES:
        folder = tmp_path_factory.mktemp(name)
        command_line(app / "model" / name, "inference.json", dataset_dir=str(patients), output_dir=str(folder))
        with open(folder / "scores.csv", newline="") as file:
            rows[name] = {row["file"].removesuffix(".nii.gz"): row for row in csv.DictReader(file)}
    return rows


@pytest.fixture(scope="module")
def own_server(app, patients, listed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    own = shutil.copytree(ROOT / "common" / "monailabel_app", folder / "app")
    shutil.copytree(app / "model", own / "model")
    studies = shutil.copytree(patients, folder / "studies")
    (studies / "broken.nii.gz").write_bytes(b"no volume")
    write_nifti(studies / "empty.nii.gz", np.zeros(SHAPE, np.int16), canonical_affine())
    with Server(own, studies, BUNDLES, folder / "server.log") as running:
        yield running


def outcome(lines):
    """What a scoring job says in its log: scans scored, kept, and failed."""
    text = "\n".join(lines)
    return {key: int(re.findall(rf"['\"]{key}['\"]: (\d+)", text)[-1]) for key in ("total", "skipped", "executed")}


def test_strategies_say_what_to_do_before_any_scan_is_scored(own_server):
    info = own_server.info()
    assert sorted(info["strategies"]) == ["anomalous", "first", "random", "typical"]
    assert sorted(info["scoring"]) == sorted(f"anomaly_{name}" for name in BUNDLES)
    with pytest.raises(
        ServerError, match="no scan is scored by the present model yet: POST /scoring/anomaly_spatial_ar first"
    ):
        own_server.next_sample("anomalous", model="spatial_ar")


@pytest.mark.parametrize("name", BUNDLES)
def test_scoring_ranks_the_scans_as_the_command_line_does(own_server, listed, name):
    scores = {image: float(row["image_score"]) for image, row in listed[name].items()}
    ranked = sorted(scores, key=scores.get)
    done = own_server.score(f"anomaly_{name}")
    assert outcome(done) == {"total": 6, "skipped": 0, "executed": 4}
    for strategy, image in (("anomalous", ranked[-1]), ("typical", ranked[0])):
        offered = own_server.next_sample(strategy, model=name)
        assert offered["id"] == image and Path(offered["path"]).is_file() and offered["unscored"] == 2
        assert offered["anomaly_score"] == pytest.approx(scores[image], rel=1e-4)
    assert outcome(own_server.score(f"anomaly_{name}")) == {"total": 6, "skipped": 4, "executed": 0}


@pytest.mark.parametrize("name", BUNDLES)
def test_answer_tells_score_and_findings(own_server, listed, tmp_path, name):
    row = listed[name]["p31"]
    said = own_server.infer(name, "p31").params
    assert said["image_score"] == pytest.approx(float(row["image_score"]), rel=1e-4)
    assert said["p_value"] == pytest.approx(float(row["p_value"]), rel=1e-4) and said["flagged_5"] is None
    assert len(said["findings"]) == int(row["findings"])
    answer = own_server.infer(name, "p31", **FINEST)
    findings, labels = answer.params["findings"], np.asanyarray(nib.load(answer.save(tmp_path)).dataobj)
    numbers, voxels = np.unique(labels[labels > 0], return_counts=True)
    assert dict(zip(numbers.tolist(), voxels.tolist(), strict=True)) == {
        one["number"]: one["voxels"] for one in findings
    }
    peaks = [one["peak"] for one in findings]
    assert findings and peaks == sorted(peaks, reverse=True)
    assert labels[tuple(findings[0]["voxel"])] == 1 and findings[0]["slice"] == findings[0]["voxel"][2] + 1


@pytest.mark.parametrize("name", BUNDLES)
def test_options_of_findings_take_effect(own_server, name):
    def found(**options):
        return own_server.infer(name, "p30", **{**FINEST, "false_positive_rate": "5 %", **options}).params["findings"]

    plain, grown = found(grow="off"), found(grow="10 %")
    assert plain and len(grown) <= len(plain) and grown[0]["peak"] == pytest.approx(plain[0]["peak"])
    assert sum(one["voxels"] for one in grown) > sum(one["voxels"] for one in plain)
    size = max(one["size"] for one in plain)
    assert len(found(grow="off", min_size=f"{size} ml")) == sum(one["size"] >= size for one in plain)
    assert found(grow="off", min_size=2 * size) == []


def test_a_labelled_scan_is_not_offered_again(own_server, listed, tmp_path):
    """Near the end: it changes the data store."""
    scores = {image: float(row["image_score"]) for image, row in listed["dpmm"].items()}
    ranked = sorted(scores, key=scores.get)
    own_server.score("anomaly_dpmm")
    empty = write_nifti(tmp_path / "label.nii.gz", np.zeros(SHAPE, np.uint8), canonical_affine())
    own_server.save_label(ranked[-1], empty)
    assert own_server.next_sample("anomalous")["id"] == ranked[-2]
    own_server.save_label(ranked[0], empty)
    assert own_server.next_sample("typical")["id"] == ranked[1]
    assert json.dumps(own_server.datastore()[ranked[0]]["labels"])


def test_batch_inference_goes_on_after_a_study_that_cannot_be_scored(own_server):
    """Last, as it gives every scan a label; ``broken`` comes first by name, ``empty`` holds one value."""
    own_server.batch_infer("dpmm", label_tag="tried")
    labelled = {image for image, facts in own_server.datastore().items() if "tried" in facts["labels"]}
    assert labelled == {"p30", "p31", "p32", "p33"}
    with pytest.raises(ServerError):
        own_server.infer("dpmm", "empty")
