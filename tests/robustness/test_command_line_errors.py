"""``python -m monai.bundle run`` on something wrong: one message, status 1, a traceback on request only."""

import subprocess
from functools import partial

import pytest
import torch

from helpers import labelled_pictures
from workflows import command, overrides, printed

pytestmark = pytest.mark.slow


def of_its_own(line):
    """Status and output of a process that begins with nothing; those of the others have MONAI already."""
    done = subprocess.run(line, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def fail(folder, kind="train", run=printed, **more):
    """What a run prints that must fail, on both streams; it leaves no model and nothing half-written."""
    status, output = run(command("dpmm", folder, kind, **{"debug": False, **more}))
    assert status == 1
    assert not list(folder.rglob("*.part.*")) and not (folder / "models" / "model.pt").exists()
    return output


def assert_one_message(output, *words):
    assert "Traceback" not in output
    assert [line for line in output.splitlines() if "rror:" in line or "ERROR" in line] == [
        line for line in output.splitlines() if line.startswith("error: ")
    ]
    (message,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert all(word in message for word in words), message


def test_misspelt_override(tmp_path):
    assert_one_message(fail(tmp_path, run=of_its_own, max_epoch=3), "--max_epoch:", "did you mean --max_epochs?")


def test_damaged_image_and_traceback_on_request(tmp_path):
    overrides("dpmm", tmp_path)
    picture = tmp_path / "data/train/good/t1.png"
    picture.write_bytes(picture.read_bytes()[:500])
    assert_one_message(fail(tmp_path), str(picture), "cannot be read", "complete and not damaged")
    assert "Traceback" in fail(tmp_path, run=partial(printed, DINO_UAD_DEBUG="1"))


def test_damaged_image_in_a_worker_process(tmp_path):
    overrides("dpmm", tmp_path)
    picture = tmp_path / "data/train/good/t1.png"
    picture.write_bytes(picture.read_bytes()[:500])
    assert_one_message(fail(tmp_path, num_workers=1), f"error: {picture}", "cannot be read")


def test_inference_without_a_model(tmp_path):
    assert_one_message(fail(tmp_path, "inference"), "model.pt: no such model file", "set ckpt_dir")


def test_error_inside_an_engine(tmp_path):
    """Engines and handlers of ignite and MONAI log what passes through them; a person wants to read it once."""
    overrides("dpmm", tmp_path)
    (tmp_path / "file").write_text("in the way")
    output = fail(tmp_path, ckpt_dir=str(tmp_path / "file" / "models"))
    assert_one_message(output, "output folder", "cannot be written", "choose another folder")


def test_no_gpu_is_said_in_words(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert_one_message(fail(tmp_path, device="cuda:0"), "no such GPU for torch", "--device cpu")


def test_names_of_folders_are_read_as_they_are_typed(tmp_path):
    """python-fire reads a number, a tuple, and what stands before a comment."""
    places = {"dataset_dir": "1e5", "ckpt_dir": "a,b", "output_dir": "2024", "cache_dir": "case#7", "model_file": "7,8"}
    labelled_pictures(tmp_path / "1e5")
    status, output = printed(command("dpmm", tmp_path, **places), tmp_path)
    assert status == 0, output
    assert (tmp_path / "a,b").is_dir() and (tmp_path / "7,8").is_file() and list((tmp_path / "case#7").iterdir())
    assert (tmp_path / "2024").is_dir() and not (tmp_path / "case").exists()
