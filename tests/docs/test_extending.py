"""The worked examples of `common/docs/extending.md` are executed: heads, bundles and test, as a reader adds them."""

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from doc_pages import code_blocks
from monai.bundle import ConfigParser
from torch import Tensor

import dino_uad.heads
from helpers import labelled_pictures

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "common" / "docs" / "extending.md"
BLOCKS = {"gaussian": 0, "autoencoder": 3}
"""The head of each example, by its place among the page's blocks of Python; its bundle is the next one."""


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    """The Python blocks of the page: head, bundle, test; head, bundle."""
    found = code_blocks(PAGE, "python")
    assert len(found) == 5
    return found


@pytest.fixture(scope="module")
def heads(blocks: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ModuleType]]:
    """``heads(name)`` is the page's head as the module `dino_uad.heads.NAME`, without a file in the package."""
    folder = tmp_path_factory.mktemp("heads")
    for name, block in BLOCKS.items():
        (folder / f"{name}.py").write_text(blocks[block])
    dino_uad.heads.__path__.append(str(folder))
    yield lambda name: importlib.import_module(f"dino_uad.heads.{name}")
    dino_uad.heads.__path__.remove(str(folder))
    for name in BLOCKS:
        sys.modules.pop(f"dino_uad.heads.{name}", None)


def test_each_example_is_about_a_hundred_lines(blocks: list[str]):
    code = [[line for line in block.splitlines() if line.strip()] for block in blocks]
    assert sum(map(len, code[:3])) < 150 and sum(map(len, code[3:])) < 60


def test_its_tests_pass(blocks: list[str], heads: Callable[[str], ModuleType]):
    heads("gaussian")
    namespace: dict = {"__name__": "test_gaussian"}
    exec(compile(blocks[2], "extending.md", "exec"), namespace)
    tests = [value for name, value in namespace.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()


def train(name: str, blocks: list[str], folder: Path, **settings: int) -> tuple[dict[str, Tensor], ConfigParser]:
    """Write the bundle of an example as the page does and run its ``train.json``; the model, and what trained it."""
    left_behind = shutil.ignore_patterns("models", "eval", "cache", "runs")
    shutil.copytree(ROOT / "bundles", folder / "bundles", ignore=left_behind)
    exec(compile(blocks[BLOCKS[name] + 1], "extending.md", "exec"), {})
    bundle = folder / "bundles" / name
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "train.json")
    parser.update(
        {
            "bundle_root": str(bundle),
            "dataset_dir": str(labelled_pictures(folder / "data")),
            "device": "cpu",
            "image_size": [56, 56],
            "network_def#backbone#weights": "random",
            "network_def#backbone#layers": [0],
            **settings,
        }
    )
    parser.get_parsed_content("run")
    return torch.load(bundle / "models" / "model.pt", weights_only=True), parser


def test_its_bundle_trains_and_calibrates(blocks, heads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    module = heads("gaussian")
    state, parser = train("gaussian", blocks, tmp_path)
    assert state["thresholds"].isfinite().all()
    network = parser.get_parsed_content("network_def")
    assert isinstance(network.head, module.GaussianHead)
    assert torch.equal(state["head.whitening"], network.head.whitening)


def test_gradients_make_the_other_ones_reconstruction_better(
    blocks, heads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    module = heads("autoencoder")
    state, parser = train("autoencoder", blocks, tmp_path, max_steps=120, max_epochs=120)
    assert state["thresholds"].isfinite().all()
    network = parser.get_parsed_content("network_def")
    assert isinstance(network.head, module.AutoencoderHead)
    dataset = parser.get_parsed_content("train#dataset")
    batch = dataset.batch(range(len(dataset)))
    inside = batch["foreground"] if "foreground" in batch else torch.ones_like(batch["embedding"][:, :1]).bool()
    scores = network.raw_scores(batch["embedding"], batch["cls"], inside)
    # Channels have unit variance over the training patches: so much is a head off that predicts their means.
    assert scores[inside].mean() < 0.7
