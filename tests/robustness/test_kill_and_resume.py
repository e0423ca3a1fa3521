"""A fit killed twice, at any moment, and resumed by the same command gives the bytes of an uninterrupted one."""

import signal
import time

import pytest
import torch

import workflows
from workflows import METHODS, model, printed, run, run_and_die, start, typed

# A fit of these pictures completes two stores' facts and embeddings (valid, train), tests of the checkpoint's and the
# model's folder, a checkpoint after each of several epochs, and the model; each epoch has 2 batches.
MOMENTS = {
    "dpmm": [("before", 5), ("batch", 3)],
    "spatial_ar": [("batch", 4), ("after", 4)],
    "dino_ad": [("after", 3), ("batch", 2)],
    "anomaly_dino": [("batch", 1), ("before", 3)],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """``whole(method)`` is the folder of an uninterrupted fit."""
    done = {}

    def get(method):
        if method not in done:
            done[method] = tmp_path_factory.mktemp(method)
            process = start(run, method, done[method])
            process.join()
            assert process.exitcode == 0
        return done[method]

    return get


def die(method, folder, event, count, **more):
    process = start(run_and_die, method, folder, event, count, more)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def finish(method, folder, **more):
    process = start(run, method, folder)
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("method", METHODS)
def test_killed_twice_and_resumed_gives_the_same_bytes(method, whole, tmp_path):
    for event, count in MOMENTS[method]:
        die(method, tmp_path, event, count)
        assert not (tmp_path / "models" / "model.pt").exists()
    finish(method, tmp_path)
    assert (tmp_path / "models/model.pt").read_bytes() == (whole(method) / "models/model.pt").read_bytes()
    # A kill in the middle of a write left a hidden part: it is gone as well.
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["model.pt"]
    assert not list((tmp_path / "cache").rglob(".*"))


@pytest.mark.parametrize("method", ["dpmm", "spatial_ar"])
@pytest.mark.parametrize("event", ["before", "after"])
def test_killed_while_the_model_is_written(event, method, whole, tmp_path):
    files = 1 + 2 * 2 + 2 + 4 + 1  # test of a folder, facts and embeddings, tests of two, checkpoints, model
    die(method, tmp_path, event, files)
    assert (tmp_path / "models" / "model.pt").exists() == (event == "after")
    assert (tmp_path / "models" / "fit.ckpt").exists()
    finish(method, tmp_path)
    assert (tmp_path / "models/model.pt").read_bytes() == (whole(method) / "models/model.pt").read_bytes()
    assert not (tmp_path / "models" / "fit.ckpt").exists()


@pytest.mark.parametrize("damage", ["cut", "text", "one bit", "other content"])
def test_damaged_checkpoint_and_cache_are_made_again(damage, whole, tmp_path):
    die("dpmm", tmp_path, "after", 8)  # two checkpoints were complete
    checkpoint = tmp_path / "models" / "fit.ckpt"
    cached = list((tmp_path / "cache").rglob("*.safetensors"))[:1]
    for path in [checkpoint, *(cached if damage != "one bit" else [])]:  # one in a cache is an error that names it
        content = path.read_bytes()
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        path.write_bytes({"cut": content[:half], "text": b"no checkpoint", "one bit": flipped}.get(damage, content))
    if damage == "other content":
        torch.save({"epoch": 2}, checkpoint)
    finish("dpmm", tmp_path)
    assert (tmp_path / "models/model.pt").read_bytes() == (whole("dpmm") / "models/model.pt").read_bytes()


def test_checkpoint_of_other_settings_is_not_continued(whole, tmp_path):
    die("dpmm", tmp_path, "after", 7, **{"network_def#head#n_components": 3})
    finish("dpmm", tmp_path)
    assert (tmp_path / "models/model.pt").read_bytes() == (whole("dpmm") / "models/model.pt").read_bytes()


@pytest.mark.slow
def test_command_line_killed_at_any_time(tmp_path):
    """``python -m monai.bundle run`` itself, killed once embeddings and once a checkpoint exist."""
    line = workflows.command("dpmm", tmp_path, max_epochs=60)
    for sign in ("cache/*/*.safetensors", "models/fit.ckpt"):
        process = typed(line)
        while not list(tmp_path.glob(sign)):
            assert process.exitcode is None, "it ended before it could be killed"
            time.sleep(0.01)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    status, output = printed(line)
    assert status == 0, output
    other = tmp_path / "uninterrupted"
    process = start(run, "dpmm", other, "train")
    process.join()
    assert model(tmp_path).keys() == model(other).keys()
