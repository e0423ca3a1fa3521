"""The bundles' ``multi_gpu_train.json`` on several processes: the model of one, and no waiting for a dead one."""

import os
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch

from workflows import METHODS, RANKS_ON, SECONDS, command, killing, model, overrides, run, run_in_group, start


def fit_in_group(method, folder, world, functions=None, **more):
    return run_in_group(world, partial(run, method, folder, "distributed", **RANKS_ON, **more), functions)


def fit_alone(method, folder, **more):
    process = start(partial(run, method, folder, **RANKS_ON, **more))
    process.join(SECONDS)
    assert process.exitcode == 0


def assert_same_model(folder, other):
    one, many = model(folder), model(other)
    assert one.keys() == many.keys()
    for key in one:
        torch.testing.assert_close(many[key], one[key], rtol=1e-5, atol=1e-5, equal_nan=True, msg=key)


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_fit_the_model_of_one_process(method, tmp_path):
    fit_alone(method, tmp_path / "one")
    assert fit_in_group(method, tmp_path / "two", 2) == [0, 0]
    assert_same_model(tmp_path / "one", tmp_path / "two")
    logs = [len(list((tmp_path / name).rglob("events.out.*"))) for name in ("one", "two")]
    assert logs[0] == logs[1] > 0, "the first rank alone writes for TensorBoard"


@pytest.mark.parametrize("method", METHODS)
def test_three_ranks_with_two_images(method, tmp_path):
    for name in ("one", "three"):
        overrides(method, tmp_path / name)
        for path in (tmp_path / name).glob("data/train/good/t[23].png"):
            path.unlink()
    fit_alone(method, tmp_path / "one")
    assert fit_in_group(method, tmp_path / "three", 3) == [0, 0, 0]
    assert_same_model(tmp_path / "one", tmp_path / "three")


@pytest.mark.parametrize("world", [2, 3])
def test_a_bank_that_no_rank_has_whole(world, tmp_path, method="anomaly_dino"):
    fit_alone(method, tmp_path / "one")
    assert fit_in_group(method, tmp_path / "many", world, **{"network_def#head#sharded": True}) == [0] * world
    assert_same_model(tmp_path / "one", tmp_path / "many")


def fit_and_die(fit):
    with killing("batch", 3):
        fit()


def test_a_rank_that_dies_stops_the_others(tmp_path):
    fit = partial(run, "dpmm", tmp_path, "distributed", timeout_minutes=1, **RANKS_ON)
    codes = fit_in_group("dpmm", tmp_path, 2, {0: fit, 1: partial(fit_and_die, fit)})
    assert codes[1] == -signal.SIGKILL
    assert codes[0] == 1, "the other rank hangs, or takes its half of the model for all of it"
    assert not (tmp_path / "models" / "model.pt").exists()


@pytest.mark.slow
def test_torchrun(tmp_path):
    fit_alone("dpmm", tmp_path / "one")
    line = command("dpmm", tmp_path / "two", "distributed", **RANKS_ON)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *line[1:]]
    done = subprocess.run(launcher, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    assert_same_model(tmp_path / "one", tmp_path / "two")
