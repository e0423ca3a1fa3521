"""A model remembers which slices it was fitted to; inference and evaluation use no others, unless told to."""

import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine

from dino_uad.detector.model_file import ALL_SLICES, fitted_slices
from dino_uad.embeddings.loader import EmbeddingLoader
from dino_uad.engines.batch import unpack
from dino_uad.handlers.finish import FinishFit
from helpers import detector, embeddings
from scans import write_nifti
from workflows import METHODS, run

SHARES = [0.0, 0.02, 0.1, 0.5, 0.6, 0.6, 0.5, 0.08]  # foreground of the slices


def volume(seed):
    array = np.random.default_rng(seed).integers(400, 1000, (20, 20, len(SHARES)))
    for index, share in enumerate(SHARES):
        array.reshape(400, -1)[round(400 * share) :, index] = 0
    return array.astype(np.float32)


@pytest.fixture
def data(tmp_path):
    for seed, name in enumerate(["train0", "train1", "train2", "valid0", "test0", "test1"]):
        write_nifti(tmp_path / "data" / name[:-1] / f"{name}.nii.gz", volume(seed), np.diag([-1, 1, 2, 1]))
    lesion = np.zeros((20, 20, len(SHARES)), np.uint8)
    lesion[2:6, 5:9, [4, 7]] = 1
    write_nifti(tmp_path / "data" / "test" / "test0_label.nii.gz", lesion, np.diag([-1, 1, 2, 1]))
    return tmp_path


def scored(folder):
    array = nib.load(next(folder.glob("test1_anomaly.nii.gz"))).get_fdata()
    return np.flatnonzero(array.any(axis=(0, 1))).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_inference_scores_the_slices_that_the_fit_would_have_taken(method, data):
    run(method, data, **{"slices#min_foreground": 0.3, "slices#stride": 2})
    assert fitted_slices(data / "models/model.pt") == {"preset": None, "stride": 2, "min_foreground": 0.3}
    run(method, data, "inference", dataset_dir=str(data / "data/test"))
    assert scored(data / "inference") == [3, 4, 5, 6]
    run(method, data, "inference", dataset_dir=str(data / "data/test"), **{"slices#min_foreground": 0})
    assert scored(data / "inference") == list(range(1, 8))


def test_evaluation_takes_the_slices_of_the_fit_unless_told_otherwise(data, caplog):
    run("dpmm", data, **{"slices#min_foreground": 0.3})
    with caplog.at_level(logging.INFO, "dino_uad"):
        run("dpmm", data, "evaluate", num_workers=0)  # on a GPU other processes would say it
    assert (
        "test0.nii.gz: 4 of 8 slices left out: 1 without foreground, 2 with less than 0.3 of their pixels above 0, "
        "1 with less than 0.3 of their pixels above 0 with an annotated anomaly"
    ) in caplog.text
    assert json.loads((data / "evaluate/metrics.json").read_text())["images"] == {"normal": 7, "anomalous": 1}
    run("dpmm", data, "evaluate", **{"slices#min_foreground": 0.05})
    assert json.loads((data / "evaluate/metrics.json").read_text())["images"] == {"normal": 10, "anomalous": 2}


def test_a_fit_that_goes_on_from_a_model_remembers_its_own_slices(tmp_path):
    data = embeddings(tmp_path, 2)
    older, newer = (detector(backbone=data.backbone, slices={"min_foreground": share}) for share in (0.3, 0.1))
    older.head.fit_batch(*unpack(data.batch([0, 1]), "cpu"))
    newer.load_state_dict(older.state_dict())
    engine = Engine(lambda *_: None)
    engine.state.device = torch.device("cpu")
    FinishFit(newer, EmbeddingLoader(data, 2), str(tmp_path / "model.pt"))(engine)
    assert fitted_slices(tmp_path / "model.pt")["min_foreground"] == 0.1


def test_a_model_that_does_not_say_has_seen_all_slices(tmp_path):
    torch.save(detector().state_dict(), tmp_path / "model.pt")
    assert fitted_slices(tmp_path / "model.pt") == ALL_SLICES
    with pytest.raises(FileNotFoundError, match=r"model\.pt: no such model file"):
        fitted_slices(tmp_path / "absent" / "model.pt")


def test_other_slices_are_no_reason_to_refuse_a_model():
    network = detector(slices={"preset": None, "stride": 1, "min_foreground": 0.3})
    detector().load_state_dict(network.state_dict())
    detector(slices={"preset": "brats_flair"}).load_state_dict(network.state_dict())
