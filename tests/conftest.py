"""Fixtures shared by every test module."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"

# `make test-monailabel` runs these in an environment of their own, which has the server.
collect_ignore = [] if find_spec("monailabel") else ["monailabel"]

if find_spec("hypothesis"):  # MONAI Label's environment has none
    from hypothesis import settings

    # The same examples in every run, and no time limit for one: a busy machine must not make a test fail.
    settings.register_profile("deterministic", deadline=None, derandomize=True)
    settings.load_profile("deterministic")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[dict[str, np.ndarray], dict]]:
    """Return ``load(name) -> (arrays, meta)`` for the reference vectors in ``tests/golden/<name>_shared.npz``."""

    def load(name: str) -> tuple[dict[str, np.ndarray], dict]:
        with np.load(GOLDEN / f"{name}_shared.npz", allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files if key != "meta_json"}
            return arrays, json.loads(str(archive["meta_json"]))

    return load
