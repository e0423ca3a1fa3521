"""All bundles in one real MONAI Label server: what it lists, infers, and does after retraining."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from drive import BUNDLES, Server, ServerError
from PIL import Image
from small_heads import ORIENTATIONS, SHAPE, canonical_affine, head, write_oriented

from scans import write_nifti


def voxels(path):
    return np.asanyarray(nib.load(path).dataobj)


def inferred(server, tmp_path, *args, **params):
    return server.infer(*args, **params).save(tmp_path)


def test_info_lists_every_bundle_with_its_options(server):
    info = server.info()
    assert sorted(info["models"]) == sorted(info["trainers"]) == sorted(BUNDLES)
    for model in info["models"].values():
        assert model["type"] == "segmentation" and model["labels"] == {"anomaly": 1}
        assert model["config"]["false_positive_rate"][:2] == ["1 in 4 normal scans", "1 finding in 10 scans"]
        assert model["config"]["smoothing"] == 0
        assert model["config"]["output"] == ["label map", "numbered findings", "anomaly map"]
        assert model["config"]["model_filename"] == ["model.pt"]
        assert model["description"].lower().count("anomaly detection") == 1


@pytest.mark.parametrize("name", BUNDLES)
def test_label_maps_are_those_of_the_command_line_in_every_orientation(server, expected, scans, tmp_path, name):
    canonical = []
    for orientation in ORIENTATIONS:
        label = nib.load(inferred(server, tmp_path, name, orientation))
        scan = nib.load(scans / "studies" / f"{orientation}.nii.gz")
        assert label.shape == scan.shape and label.get_data_dtype() == np.uint8
        np.testing.assert_allclose(label.affine, scan.affine, atol=1e-4)
        array = np.asanyarray(label.dataobj)
        np.testing.assert_array_equal(array, voxels(expected[name] / f"{orientation}_label.nii.gz"))
        canonical.append(array if orientation == "oblique" else np.asanyarray(nib.as_closest_canonical(label).dataobj))
    assert 0 < canonical[0].sum() < canonical[0].size / 2
    assert not canonical[0][..., [0, -1]].any()  # empty slices
    for other in canonical[1:]:
        np.testing.assert_array_equal(other, canonical[0])


@pytest.mark.parametrize("name", BUNDLES)
def test_pictures_come_back_upright(server, expected, tmp_path, name):
    for picture in ("grey", "colour"):
        label = np.asarray(Image.open(inferred(server, tmp_path, name, picture)))
        of_command_line = np.asarray(Image.open(expected[name] / f"{picture}_label.png"))
        assert label.shape == SHAPE[1::-1]
        np.testing.assert_array_equal(label > 0, of_command_line > 0)


def test_dicom_series_is_labelled_in_its_own_grid(server, expected, scans, tmp_path):
    series = str(scans / "studies" / "series")
    label = nib.load(inferred(server, tmp_path, "dpmm", series, result_extension=".nii.gz"))
    of_command_line = nib.load(expected["dpmm"] / "series_label.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(label.dataobj), np.asanyarray(of_command_line.dataobj))
    np.testing.assert_allclose(label.affine, of_command_line.affine, atol=1e-4)


@pytest.mark.parametrize("name", BUNDLES)
def test_operating_point_takes_effect_in_each_request(server, tmp_path, name):
    counts = [
        int(voxels(inferred(server, tmp_path, name, "RAS", false_positive_rate=rate, grow="off")).sum())
        for rate in ("1 %", 0.05, ["10 %"])
    ]
    assert counts[0] < counts[1] < counts[2]
    few = int(voxels(inferred(server, tmp_path, name, "RAS")).sum())
    named = inferred(server, tmp_path, name, "RAS", false_positive_rate="1 in 4 normal scans", grow="0.5 %")
    assert few == int(voxels(named).sum()) < counts[1]


WRONG = {
    "false_positive_rate": (
        "2 %",
        "false positive rate '2 %' found; this model is calibrated for 0.1, 0.05, 0.01, 0.005, 0.001, "
        "'1 finding in 10 scans', '1 in 4 normal scans'",
    ),
    "smoothing": ("wide", "smoothing 'wide' found; expected a number of slices from 0 to 1000"),
    "output": ("mask", "output 'mask' found; expected 'label map', 'numbered findings' or 'anomaly map'"),
}


@pytest.mark.parametrize("option", WRONG)
def test_client_is_told_which_option_is_wrong(server, option):
    value, message = WRONG[option]
    with pytest.raises(ServerError) as caught:
        server.infer("dpmm", "RAS", **{option: value})
    assert f': 400 {{"detail":"option {option}: {message}"}}' in str(caught.value)
    assert server.said(f"request refused: option {option}: {message}")


def test_anomaly_map_and_smoothing(server, expected, tmp_path):
    plain = voxels(inferred(server, tmp_path, "dpmm", "LPS", output="anomaly map"))
    assert plain.dtype == np.float32
    np.testing.assert_array_equal(plain, voxels(expected["dpmm"] / "LPS_anomaly.nii.gz"))
    smooth = voxels(inferred(server, tmp_path, "dpmm", "LPS", output=["anomaly map", "label map"], smoothing="1.5"))
    occupied = plain[..., 1:-1]
    assert np.abs(np.diff(smooth[..., 1:-1])).mean() < np.abs(np.diff(occupied)).mean() / 1.5
    assert not smooth[..., [0, -1]].any()
    picture = np.asarray(Image.open(inferred(server, tmp_path, "dpmm", "grey", output="anomaly map")))
    of_command_line = np.asarray(Image.open(expected["dpmm"] / "grey_anomaly.tif"))
    assert np.corrcoef(picture.ravel(), of_command_line.ravel())[0, 1] > 0.99


def test_batch_inference_stores_a_label_for_every_image(server):
    server.batch_infer("anomaly_dino")
    assert all("original" in image["labels"] for image in server.datastore().values())


@pytest.fixture
def retraining(app, tmp_path):
    """A server of its own, with three heads to learn from; active learning by dropout is on."""
    own = shutil.copytree(app, tmp_path / "app")
    for seed in range(20, 23):
        write_oriented(tmp_path / "studies" / f"new{seed}.nii.gz", head(seed), "RAS")
    write_oriented(tmp_path / "studies" / "patient.nii.gz", head(9, lesion=True), "LPS")
    with Server(own, tmp_path / "studies", BUNDLES, tmp_path / "log", conf={"epistemic_model": "dpmm"}) as running:
        yield running


def model_of(app, name):
    return torch.load(app / "model" / name / "models" / "model.pt", weights_only=True)


def test_scoring_by_dropout_ranks_the_images(retraining, tmp_path):
    retraining.score("dpmm", simulation_size=2, max_workers=1)
    stored = json.loads((tmp_path / "studies" / "datastore_v2.json").read_text())["objects"]
    scores = [entry["image"]["info"].get("epistemic_entropy") for entry in stored.values()]
    assert len(scores) == 4 and all(np.isfinite(scores))


def test_retraining_replaces_the_model_that_the_next_request_uses(retraining, tmp_path):
    empty = write_nifti(tmp_path / "empty.nii.gz", np.zeros(SHAPE, np.uint8), canonical_affine())
    annotated = np.zeros(SHAPE, np.uint8)
    annotated[20:24, 20:24, 3:5] = 1
    lesion = write_nifti(tmp_path / "lesion.nii.gz", annotated, canonical_affine())
    own = tmp_path / "app"
    for name in BUNDLES:
        before = model_of(own, name), voxels(inferred(retraining, tmp_path, name, "patient", output="anomaly map"))
        if name == BUNDLES[0]:  # one image: no validation image is left, slices of it have to do
            retraining.save_label("new20", empty)
            retraining.train(name, max_epochs=2)
            assert retraining.said("no validation images were given")
            retraining.save_label("new21", empty)
            retraining.save_label("new22", lesion)
        retraining.train(name, max_epochs=2, val_split=0.34)
        after = model_of(own, name), voxels(inferred(retraining, tmp_path, name, "patient", output="anomaly map"))
        assert after[0]["thresholds"].isfinite().all()
        assert not torch.equal(after[0]["thresholds"], before[0]["thresholds"])
        assert not np.array_equal(after[1], before[1])
        assert [file.name for file in (own / "model" / name / "models").iterdir()] == ["model.pt"]


def test_validation_images_of_the_bundles_own_data(retraining, scans, tmp_path):
    empty = write_nifti(tmp_path / "empty.nii.gz", np.zeros(SHAPE, np.uint8), canonical_affine())
    retraining.save_label("new20", empty)
    own, before = tmp_path / "app", model_of(tmp_path / "app", "dpmm")
    with pytest.raises(ServerError, match=r"no such folder\. Give the data set's folder as dataset_dir"):
        retraining.train("dpmm", max_epochs=1, val_split=-1)
    assert torch.equal(model_of(own, "dpmm")["thresholds"], before["thresholds"])
    path = own / "model" / "dpmm" / "configs" / "train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset_dir": str(scans / "normal")}))
    retraining.train("dpmm", max_epochs=1, val_split=-1)
    assert not retraining.said("no validation images were given", patience=0)
    assert not torch.equal(model_of(own, "dpmm")["thresholds"], before["thresholds"])
    with pytest.raises(ServerError, match="max_epochs: found 'many', expected a whole number"):
        retraining.train("dpmm", max_epochs="many", val_split=-1)


def test_retraining_goes_on_from_the_model_it_has(retraining, tmp_path):
    empty = write_nifti(tmp_path / "empty.nii.gz", np.zeros(SHAPE, np.uint8), canonical_affine())
    for seed in range(20, 23):
        retraining.save_label(f"new{seed}", empty)
    steps = [int(model_of(tmp_path / "app", "dpmm")["head.step"])]
    for val_split in (0, 0.34):
        retraining.train("dpmm", max_epochs=1, val_split=val_split)
        steps.append(int(model_of(tmp_path / "app", "dpmm")["head.step"]))
    assert steps[0] < steps[1] < steps[2]
    bank = model_of(tmp_path / "app", "anomaly_dino")["head.bank"]
    retraining.train("anomaly_dino", val_split=0.34)
    assert len(model_of(tmp_path / "app", "anomaly_dino")["head.bank"]) < len(bank)  # of 2 heads, was of 3
