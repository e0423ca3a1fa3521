"""Descriptions tell apart what behaves differently, and nothing else."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad, ScaleIntensityd

from dino_uad.describe import describe

FACTOR = 2
HELD = {"factor": 3}


def scaled(by):
    return lambda image: image * by


def with_default(by=1):
    def scale(image, by=by):
        return image * by

    return scale


def helper(image):
    return image * FACTOR


def calls_helper(image):
    return [helper(part) for part in image]


class Scale:
    offset = 0

    def __init__(self, by):
        self.by = by

    def __call__(self, image):
        return image * self.by + self.offset

    def other(self, image):
        return image


def described(thing) -> str:
    return json.dumps(describe(thing))


LONG = np.zeros(5000)
CHANGED = np.where(np.arange(5000) == 2500, 1.0, 0.0)  # within what repr abbreviates

DIFFERENT = {
    "partials": (functools.partial(helper, 1), functools.partial(helper, 2), functools.partial(len, 1)),
    "closures": (scaled(1), scaled(2), scaled(np.float32(1)), scaled("1")),
    "defaults": (with_default(1), with_default(2)),
    "arrays": (LONG, CHANGED, LONG.astype(np.float32), LONG.reshape(50, 100)),
    "tensors": tuple(map(torch.from_numpy, (LONG, CHANGED))),
    "objects": (Scale(1), Scale(2), Scale(LONG), Scale(CHANGED)),
    "methods": (Scale(1).other, Scale(1).__call__, Scale(2).other),
    "values": (None, "None", 0, False, 0.0, "0", b"0", [0], [[0]], {"0": 0}, {0: 0}, {0}),
    "constants": (lambda x: x + 1, lambda x: x + 2, lambda x: [y + 1 for y in x], lambda x: [y + 2 for y in x]),
    "names": (lambda x: np.sin(x), lambda x: np.cos(x)),
    "built in": (len, max, np.add, np.multiply, str.upper, "a".join, "b".join),
    "within MONAI": tuple(Compose([ScaleIntensityd("image"), Lambdad("image", f)]) for f in (scaled(1), scaled(2))),
    "types": (torch.float16, torch.float32, np.dtype("f4"), np.float32, torch.device("cpu")),
    "modules": (torch.nn.Conv2d(1, 1, 3, padding=1), torch.nn.Conv2d(1, 1, 3, padding=2)),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_different_things_look_different(kind):
    things = DIFFERENT[kind]
    assert len({described(thing) for thing in things}) == len(things)


@pytest.mark.parametrize(
    "make", [lambda: scaled(2), lambda: Scale(LONG.copy()), lambda: with_default(3), lambda: {1, 2}]
)
def test_equal_things_look_equal(make):
    assert described(make()) == described(make())


def test_what_a_function_looks_up_counts(monkeypatch):
    before = described(calls_helper), described(Scale(1))
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3)  # a global of a function that it calls
    monkeypatch.setattr(Scale, "offset", 1)
    assert described(calls_helper) != before[0] and described(Scale(1)) != before[1]


def test_a_path_counts_by_its_file(tmp_path):
    path = tmp_path / "atlas.nii"
    seen = [described(path)]
    for content in ("one", "two"):
        path.write_text(content)
        seen.append(described(path))
    assert len(set(seen)) == 3


def test_random_states_do_not_count_and_circles_end():
    scale, state = Scale(1), Scale(np.random.RandomState(0))
    scale.itself = scale
    before = described([scale, state])
    state.by.rand()
    assert described([scale, state]) == before


def test_unknown_things_are_never_taken_for_each_other(caplog):
    first, second = (memoryview(b"abc") for _ in range(2))
    assert described(first) != described(second)
    assert "the settings of a builtins.memoryview cannot be told" in caplog.text


def some_of_each() -> str:
    things = [value for kind, value in DIFFERENT.items() if kind not in ("types", "modules")]
    return described([things, calls_helper, Scale({"a", "b", "c"})])


def test_another_process_says_the_same():
    """Addresses and the order of sets differ between processes."""
    code = "import test_describe; print(test_describe.some_of_each())"
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout == some_of_each() + "\n"


def test_a_package_beside_the_environment_is_described_by_its_version(tmp_path):
    """``pip install --user`` or ``--target``, or what the system has: their globals may hold a seed, or anything."""
    package = tmp_path / "installed" / "package"
    package.mkdir(parents=True)
    (package.parent / "package-1.0.dist-info").mkdir()
    code = "import package; from dino_uad.describe import describe; print(describe(package.f))"
    environment = {"PYTHONPATH": ":".join([str(package.parent), *sys.path]), "OMP_NUM_THREADS": "1"}
    seen = set()
    for seed in (0, 1):
        (package / "__init__.py").write_text(f"__version__ = '1.0'\nseed = {seed}\ndef f():\n    return seed\n")
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        seen.add(run.stdout)
    assert seen == {"['function', 'package.f', '1.0', None, None, []]\n"}
