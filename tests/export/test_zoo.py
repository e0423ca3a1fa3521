"""Shared bundles in an empty folder and an environment without this repository."""

import json
import re
import shutil
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
import torch
from PIL import Image
from small_bundle import BUNDLES, NAMES, fit, overrides

from dino_uad.export.bundle import export_bundle, import_bundle
from helpers import labelled_pictures, pictures

HERE = Path(__file__).parent
SCHEMA = HERE / "meta_schema_20240725.json"


def test_loaded_torchscript_and_onnx_give_the_maps_of_the_fitted_networks(exported, alone, fitted, tmp_path):
    """``receive.py`` takes all four bundles through the model zoo's checks, in one process."""
    shutil.copy(HERE / "receive.py", tmp_path)
    pictures(tmp_path / "data", 1)
    printed = alone(tmp_path, "receive.py", str(SCHEMA), *(str(exported(name)) for name in NAMES))
    assert f"package: {tmp_path / NAMES[0] / 'dino_uad'}" in printed
    maps = torch.load(tmp_path / "maps.pt", weights_only=True)
    assert [*maps] == [*NAMES]
    for name in NAMES:
        _compare(maps[name], fitted(name), overrides(name))


@pytest.mark.slow
def test_the_same_with_the_real_backbone(alone, tmp_path):
    bundle = tmp_path / "source" / "anomaly_dino"
    shutil.copytree(BUNDLES / bundle.name, bundle, ignore=shutil.ignore_patterns("models", "eval", "cache"))
    fit(bundle.name, bundle / "models" / "model.pt", real=True)
    settings = overrides(bundle.name, real=True)
    archive = export_bundle(str(bundle), str(tmp_path / "dist"), **settings)
    (tmp_path / "empty").mkdir()
    shutil.copy(HERE / "receive.py", tmp_path)
    pictures(tmp_path / "empty" / "data", 1)
    alone(tmp_path / "empty", str(tmp_path / "receive.py"), str(SCHEMA), str(archive))
    _compare(torch.load(tmp_path / "empty" / "maps.pt", weights_only=True)[bundle.name], bundle, settings)


def test_run_trains_evaluates_and_infers_with_the_code_the_bundle_carries(exported, alone, tmp_path):
    labelled_pictures(tmp_path / "data")
    root = import_bundle(str(exported("dpmm")), str(tmp_path / "there"))
    (tmp_path / "here").mkdir()
    before = (root / "models" / "model.pt").read_bytes()
    for configs, data in (
        (("train",), "data"),
        (("train", "evaluate"), "data"),
        (("inference",), "data/test/good/img"),
    ):
        line = ["-m", "monai.bundle", "run", "--bundle_root", str(root), "--dataset_dir", str(tmp_path / data)]
        line += ["--max_epochs", "2"] if configs == ("train",) else []
        files = [str(root / "configs" / f"{name}.json") for name in configs]
        printed = alone(tmp_path / "here", *line, "--config_file", str(files))
    assert (root / "models" / "model.pt").read_bytes() != before
    assert not list((tmp_path / "here").iterdir())
    assert "code differs" not in printed
    maps = sorted(path.name for path in (root / "eval").glob("**/*anomaly*"))
    assert len(maps) == 2, maps
    assert json.loads((root / "eval" / "metrics.json").read_text())["images"] == {"normal": 2, "anomalous": 2}
    assert "normal" in alone(root, "-m", "dino_uad", "check", str(tmp_path / "data"))
    verbs = set(re.findall(r"^  (\w+) ", alone(root, "-m", "dino_uad", "--help"), re.MULTILINE))
    assert {"weights", "cache", "check", "calibrate", "prepare"} <= verbs
    assert not verbs & {"demo", "compare", "distill", "export", "bench"}
    assert "no bundles came with this copy" in alone(root, "-m", "dino_uad", "init", "more", status=1)


@pytest.mark.parametrize("configs", [("train",), ("train", "evaluate")])
@pytest.mark.parametrize("name", NAMES)
def test_training_and_evaluation_have_the_properties_monai_asks_for(fitted, tmp_path, name, configs):
    for split in ("train/good", "valid/good", "test/Ungood/img"):
        pictures(tmp_path / split, 2)
    (tmp_path / "test" / "Ungood" / "label").mkdir()
    for path in (tmp_path / "test" / "Ungood" / "img").iterdir():
        Image.fromarray(np.eye(56, dtype=np.uint8) * 255).save(tmp_path / "test" / "Ungood" / "label" / path.name)
    files = [str(fitted(name) / "configs" / f"{config}.json") for config in configs]
    paths = {"bundle_root": str(fitted(name)), "dataset_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache")}
    alone = len(configs) == 1
    if alone:
        paths |= {"ckpt_dir": str(tmp_path / "models"), "output_dir": str(tmp_path / "eval"), "max_epochs": 2}
    workflow = monai.bundle.ConfigWorkflow(
        files, workflow_type="train", logging_file=False, debug=True, **paths, **overrides(name)
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    if alone:  # the trainer of the properties is whole without the config's `run`, and runs again
        for _ in range(2):
            workflow.trainer.run()
            torch.load(tmp_path / "models" / "model.pt", weights_only=True)


@pytest.mark.parametrize("name", NAMES)
def test_metadata_is_valid_and_states_the_pinned_versions(name):
    path = BUNDLES / name / "configs" / "metadata.json"
    monai.bundle.verify_metadata(meta_file=str(path), filepath=str(SCHEMA))
    metadata = json.loads(path.read_text())
    assert metadata["version"] in metadata["changelog"]
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", (BUNDLES.parent / "requirements.txt").read_text(), re.MULTILINE))
    stated = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    for package, key in stated.items():
        assert metadata[key] == pins[package]
    for package, version in metadata["required_packages_version"].items():
        assert pins[package] == version, package


def _compare(maps: dict[str, torch.Tensor], bundle: Path, settings: dict) -> None:
    """Maps that the receiver got against those of the network that was shared."""
    parser = monai.bundle.ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser.update(settings | {"bundle_root": str(bundle)})
    network = parser.get_parsed_content("network_def").eval()
    image = torch.rand(1, 1, *network.image_size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(image)
    assert expected.std() > 0
    for kind in ("loaded", "torchscript"):
        torch.testing.assert_close(maps[kind], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(maps["onnx"], expected, rtol=1e-4, atol=1e-4)
