"""Calibrating again: the fit's own scans give the fit's model, other scans give thresholds that hold on them."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scans
import workflows
from dino_uad.calibrate import calibrate
from dino_uad.data import datalist
from dino_uad.detector import NormalScans, flagged_shares

OVERRIDES = {key: value for key, value in workflows.TINY.items() if key.startswith("network_def")}

NOT_DEFAULT = {  # the model tells it
    "dpmm": {"network_def#baseline": 0.25, "network_def#head#score_type": "euclidean"},
    "anomaly_dino": {
        "network_def#smoothing_sigma": 2.0,
        "network_def#head#k_neighbors": 2,
        "network_def#head#retrieve": None,
    },
}


@pytest.fixture(scope="module", params=["dpmm", "anomaly_dino"])
def fitted(request, tmp_path_factory) -> tuple[str, Path]:
    root = tmp_path_factory.mktemp(request.param)
    workflows.run(request.param, root, **NOT_DEFAULT[request.param])
    return request.param, root


def calibrated(method: str, root: Path, scans: Path, **more):
    overrides = {**OVERRIDES, **workflows.METHODS[method], **more}
    return calibrate(str(scans), str(workflows.BUNDLES / method), str(root / "models/model.pt"), **overrides)


def digest(path: Path) -> int:
    """Of the list of the SHA-256 of a picture's files: its first eight bytes."""
    text = json.dumps([[hashlib.sha256(path.read_bytes()).hexdigest()]])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def load(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def test_the_fits_own_validation_scans_give_the_fits_own_model(fitted, capsys) -> None:
    method, root = fitted
    before = (root / "models/model.pt").read_bytes()
    result = calibrated(method, root, root / "data/valid", out=str(root / "same"))
    assert (root / "models/model.pt").read_bytes() == before
    old, new = load(root / "models/model.pt"), load(root / "same/model.pt")
    assert old.keys() == new.keys()
    for key, value in old.items():
        torch.testing.assert_close(new[key], value, rtol=0, atol=0, equal_nan=True, msg=key)
    assert result["before"] == result["after"] and result["groups"] == 2
    said = capsys.readouterr().out
    assert "cannot promise" in said and "after *" in said and f"* {result['after_is']}" in said
    assert "on the scans that calibrated" in result["after_is"]


def test_other_scans_give_thresholds_that_hold_on_them(fitted) -> None:
    method, root = fitted
    rng = np.random.default_rng(5)
    site = root / "site"
    site.mkdir()
    for i in range(24):
        Image.fromarray(rng.integers(60, 256, (56, 56), dtype=np.uint8)).save(site / f"patient{i}.png")
    (site / "broken.png").write_bytes(b"no picture")
    result = calibrated(method, root, site)
    assert (
        result["scans"] == result["groups"] == 24 and result["after"]["flagged at 5%"] == 0
    )  # the highest of 24 has p = 2 / 25
    assert result["before"]["flagged at 5%"] is None and result["after"]["flagged at 1%"] is None
    assert result["after"]["with a finding (1 finding in 10 scans)"] <= 0.1
    assert result["after"]["with a finding (1 in 4 normal scans)"] <= 0.25
    assert json.loads((root / "models/calibrated/calibration.json").read_text()) == result
    head = [key for key in load(root / "models/model.pt") if key.startswith("head.")]
    old, new = load(root / "models/model.pt"), load(root / "models/calibrated/model.pt")
    assert not torch.equal(old["thresholds"], new["thresholds"]) or not torch.equal(
        old["units.knots"], new["units.knots"]
    )
    assert all(torch.equal(old[key], new[key]) for key in head if "calib" not in key and "valid" not in key)


def test_replacing_keeps_the_old_model(fitted) -> None:
    method, root = fitted
    folder = root / "replaced"
    shutil.copytree(root / "models", folder / "models")
    before = (folder / "models/model.pt").read_bytes()
    for kept in ("model.pt.before", "model.pt.before1"):
        calibrated(method, folder, root / "data/test/good", replace=True)
        assert (folder / "models" / kept).exists()
    assert (folder / "models/model.pt.before").read_bytes() == before
    assert (folder / "models/model.pt").read_bytes() == (folder / "models/calibrated/model.pt").read_bytes() != before


def test_images_of_the_fit_do_not_calibrate(fitted, caplog) -> None:
    """Known by their bytes: copies of other names, some among new ones, and still after a calibration."""
    method, root = fitted
    images = [digest(path) for path in sorted((root / "data/train/good").iterdir())]
    assert load(root / "models/model.pt")["fitted_images.digests"].tolist() == sorted(images)
    mixed = root / "mixed"
    shutil.copytree(root / "data/test/good/img", mixed)
    for i, path in enumerate(sorted((root / "data/train/good").iterdir())[:3]):
        shutil.copy(path, mixed / f"copy{i}.png")
    some = calibrated(method, root, mixed, out=str(root / "some"))
    assert "3 of 5 scans are left out: the model was fitted to them" in caplog.text
    alone = calibrated(method, root, root / "data/test/good", out=str(root / "alone"))
    assert (some["left_out"], some["scans"], alone["left_out"]) == (3, 2, 0)
    assert (root / "some/model.pt").read_bytes() == (root / "alone/model.pt").read_bytes()
    for model in ("models/model.pt", "some/model.pt"):
        with pytest.raises(ValueError, match=r"was fitted to all of these 4 normal scans: .*calibrate with scans that"):
            bundle = str(workflows.BUNDLES / method)
            calibrate(str(root / "data/train"), bundle, str(root / model), out=str(root / "none"), **OVERRIDES)


def test_a_model_that_does_not_tell_its_images_calibrates_with_a_warning(fitted, caplog) -> None:
    method, root = fitted
    (root / "older/models").mkdir(parents=True)
    state = load(root / "models/model.pt")
    del state["fitted_images.digests"]
    torch.save(state, root / "older/models/model.pt")
    assert calibrated(method, root / "older", root / "data/train")["left_out"] == 0
    assert "model.pt does not tell which images it was fitted to" in caplog.text


def test_wrong_calls_are_named(fitted) -> None:
    method, root = fitted
    with pytest.raises(ValueError, match="where the old model is"):
        calibrated(method, root, root / "data/valid", out=str(root / "models"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        calibrated(method, root, root / "nowhere")
    with pytest.raises(ValueError, match="did you mean --network_def#head"):
        calibrated(method, root, root / "data/valid", **{"network_def#heads": 3})
    with pytest.raises(ValueError, match="--num_workers is -1; expected a whole number of at least 0"):
        calibrated(method, root, root / "data/valid", num_workers=-1)


def test_annotated_slices_do_not_count_as_normal(tmp_path) -> None:
    for name in ("sub-01", "sub-02", "sub-03", "sub-04"):
        scans.write_nifti(tmp_path / f"{name}_flair.nii.gz", scans.volume())
        mask = np.zeros((12, 10, 7), np.uint8)
        mask[3, 3, 2] = name == "sub-01"
        scans.write_nifti(tmp_path / f"{name}_label.nii.gz", mask)
    listed = {item["group"]: item for item in datalist(tmp_path, "all", normal_only=True)}
    assert len(listed) == 4 and sum("label" in item for item in listed.values()) >= 1
    marked = next(item for item in listed.values() if "label" in item)
    assert "sub-01_flair" in marked["image"] and "sub-01_label" in marked["label"]


def slices_of_one(folder: Path, count: int) -> Path:
    """Pictures whose names say that they are slices of the patient ``mr7``; their folder."""
    folder.mkdir()
    for i in range(count):
        image = np.random.default_rng(i).integers(60, 256, (56, 56), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"mr7_slice{i}.png")
    return folder


def test_one_patient_calibrates_and_is_told_what_that_can_promise(fitted, capsys) -> None:
    method, root = fitted
    site = slices_of_one(root / "one", 3)
    result = calibrated(method, root, site, **{"train_data#group_pattern": "mr7"})
    assert result["groups"] == 1 and result["slices"] == 3
    assert (
        "1 group of normal validation images cannot promise 5% of false alarms, only 50.00%" in capsys.readouterr().out
    )
    normal = load(root / "models/calibrated/model.pt")
    assert normal["thresholds"].isfinite().all() and normal["normal_scans.finding_thresholds"].isfinite().all()


def test_slices_that_look_like_one_patients_are_told_of(fitted, caplog) -> None:
    """Without a pattern each counts as a patient: what is promised then is more than one patient's scans can."""
    method, root = fitted
    site = slices_of_one(root / "alike", 4)
    assert calibrated(method, root, site)["groups"] == 4
    assert any("slices of 1 patient (mr7)" in told and "promise too much" in told for told in caplog.messages)


def test_shares_of_other_scans_are_counted_by_patient() -> None:
    rng = np.random.default_rng(0)
    known, maps = rng.normal(size=39), rng.gumbel(size=(39, 5, 5)).astype(np.float32)
    normal = NormalScans()
    normal.fit(torch.from_numpy(known).float(), range(39), torch.from_numpy(maps), range(39))
    scores, others = rng.normal(size=60) + 0.5, rng.gumbel(size=(60, 5, 5)).astype(np.float32)
    found = flagged_shares(normal, torch.from_numpy(scores).float(), np.arange(60) // 2, torch.from_numpy(others))
    p_values = (1 + (known >= scores.reshape(30, 2).max(axis=1)[:, None]).sum(axis=1)) / 40
    assert found["flagged at 5%"] == (p_values <= 0.05).mean() > 0 and found["flagged at 1%"] is None
    for point, threshold in normal.free_response().items():
        marked = others.reshape(30, -1).max(axis=1) >= threshold
        assert found[f"with a finding ({point})"] == pytest.approx(marked.mean()) and 0 < marked.mean() < 1


@pytest.mark.parametrize("groups", [10, 38])
def test_shares_after_a_calibration_follow_from_the_number_of_scans(groups) -> None:
    found = set()
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        scores = torch.randn(groups, generator=generator).exp()
        normal, names = NormalScans(), list(range(groups))
        normal.fit(scores, names, scores[:, None, None], names)
        found.add(tuple(flagged_shares(normal, scores, names, scores[:, None, None]).items()))
    assert len(found) == 1, "whatever the scores are, which is why the command says so"
