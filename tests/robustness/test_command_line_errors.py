"""``python -m monai.bundle run`` on something wrong: one message, status 1, a traceback on request only."""

import os
import subprocess

import pytest

from workflows import command, overrides

pytestmark = pytest.mark.slow


def fail(folder, kind="train", environment=None, **more):
    """Standard error of a run that must fail, after checking that both streams together hold one message."""
    line = command("dpmm", folder, kind, **{"debug": False, **more})
    done = subprocess.run(line, env=os.environ | (environment or {}), capture_output=True, text=True)
    assert done.returncode == 1
    assert not list(folder.rglob("*.part.*")) and not (folder / "models" / "model.pt").exists()
    return done.stdout + done.stderr


def assert_one_message(output, *words):
    assert "Traceback" not in output
    assert [line for line in output.splitlines() if "rror:" in line or "ERROR" in line] == [
        line for line in output.splitlines() if line.startswith("error: ")
    ]
    (message,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert all(word in message for word in words), message


def test_misspelt_override(tmp_path):
    assert_one_message(fail(tmp_path, max_epoch=3), "--max_epoch:", "did you mean --max_epochs?")


def test_damaged_image_and_traceback_on_request(tmp_path):
    overrides("dpmm", tmp_path)
    picture = tmp_path / "data/train/good/t1.png"
    picture.write_bytes(picture.read_bytes()[:500])
    assert_one_message(fail(tmp_path), str(picture), "cannot be read", "complete and not damaged")
    assert "Traceback" in fail(tmp_path, environment={"DINO_UAD_DEBUG": "1"})


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
