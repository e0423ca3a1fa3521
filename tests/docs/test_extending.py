"""The worked example of `common/docs/extending.md` is executed: head, bundle and test, as a reader would add them."""

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from doc_pages import code_blocks
from monai.bundle import ConfigParser

import dino_uad.heads
from helpers import labelled_pictures

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "common" / "docs" / "extending.md"


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    """The three Python blocks of the page: head, bundle, test."""
    found = code_blocks(PAGE, "python")
    assert len(found) == 3
    return found


@pytest.fixture(scope="module")
def head_module(blocks: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The page's head as the module `dino_uad.heads.gaussian`, without a file in the package."""
    folder = tmp_path_factory.mktemp("heads")
    (folder / "gaussian.py").write_text(blocks[0])
    dino_uad.heads.__path__.append(str(folder))
    yield importlib.import_module("dino_uad.heads.gaussian")
    dino_uad.heads.__path__.remove(str(folder))
    del sys.modules["dino_uad.heads.gaussian"]


def test_the_example_is_about_a_hundred_lines(blocks: list[str]):
    code = [line for block in blocks for line in block.splitlines() if line.strip()]
    assert len(code) < 150


def test_its_tests_pass(blocks: list[str], head_module: ModuleType):
    namespace: dict = {"__name__": "test_gaussian"}
    exec(compile(blocks[2], "extending.md", "exec"), namespace)
    tests = [value for name, value in namespace.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()


def test_its_bundle_trains_and_calibrates(
    blocks: list[str], head_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    left_behind = shutil.ignore_patterns("models", "eval", "cache", "runs")
    shutil.copytree(ROOT / "bundles" / "dpmm", tmp_path / "bundles" / "dpmm", ignore=left_behind)
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks[1], "extending.md", "exec"), {})
    bundle = tmp_path / "bundles" / "gaussian"
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "train.json")
    parser.update(
        {
            "bundle_root": str(bundle),
            "dataset_dir": str(labelled_pictures(tmp_path / "data")),
            "device": "cpu",
            "image_size": [56, 56],
            "network_def#backbone#weights": "random",
            "network_def#backbone#layers": [0],
        }
    )
    parser.get_parsed_content("train#trainer").run()
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert state["thresholds"].isfinite().all()
    network = parser.get_parsed_content("network_def")
    assert isinstance(network.head, head_module.GaussianHead)
    assert torch.equal(state["head.whitening"], network.head.whitening)
