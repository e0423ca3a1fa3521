"""Fixtures shared by every test module."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"

# Before torch is imported, here and in processes that tests start: workers of pytest-xdist divide the cores. With a
# thread for every core in each of two workers on two cores, threads wait for one another: three times as slow.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

# `make test-monailabel` runs these in an environment of their own, which has the server.
collect_ignore = [] if find_spec("monailabel") else ["monailabel"]

if find_spec("hypothesis"):  # MONAI Label's environment has none
    from hypothesis import settings

    # The same examples in every run, and no time limit for one: a busy machine must not make a test fail.
    settings.register_profile("deterministic", deadline=None, derandomize=True)
    settings.load_profile("deterministic")


@pytest.fixture(autouse=True)
def root_level() -> Iterator[None]:
    """Give the root logger its level back: a bundle that ran in this process has set it to INFO for all later tests.

    What is logged is part of a test's report, which pytest-xdist cannot send on where a file's name is not UTF-8.
    """
    yield
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture(scope="session", autouse=True)
def weights_drawn_once() -> Iterator[None]:
    """Draw the random weights of an architecture once: hundreds of tests build a backbone of 21 million of them."""
    from dino_uad.backbones import backbone

    drawn = cache(lambda config, seed: draw(backbone.VisionTransformer(config), seed))
    draw = backbone.random_state

    def copies(model, seed=0):
        return {key: tensor.clone() for key, tensor in drawn(model.config, seed).items()}

    with mock.patch.object(backbone, "random_state", copies):
        yield


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[dict[str, np.ndarray], dict]]:
    """Return ``load(name) -> (arrays, meta)`` for the reference vectors in ``tests/golden/<name>_shared.npz``."""

    def load(name: str) -> tuple[dict[str, np.ndarray], dict]:
        with np.load(GOLDEN / f"{name}_shared.npz", allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files if key != "meta_json"}
            return arrays, json.loads(str(archive["meta_json"]))

    return load
