"""Bundles fitted to small generated heads, and a server that offers them."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
from drive import BUNDLES, Server
from PIL import Image
from small_heads import ORIENTATIONS, head, write_oriented

from scans import write_dicom

ROOT = Path(__file__).parents[2]
SAMPLE_APP = Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle"


def bundle_run(root: Path, config: str, **overrides: object) -> None:
    """What ``python -m monai.bundle run`` does, without starting Python each time."""
    monai.bundle.run(bundle_root=str(root), config_file=str(root / "configs" / config), **overrides)


@pytest.fixture(scope="session")
def command_line() -> Callable[..., None]:
    return bundle_run


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``normal/``, and ``studies/``: a lesion in five orientations and as a DICOM series, two pictures."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in range(4):
        write_oriented(folder / "normal" / f"n{seed}.nii.gz", head(seed), "RAS")
    patient = head(9, lesion=True)
    for orientation in ORIENTATIONS:
        write_oriented(folder / "studies" / f"{orientation}.nii.gz", patient, orientation)
    grey = (patient[:, :, 4].T / patient.max() * 255).astype(np.uint8)
    Image.fromarray(grey).save(folder / "studies" / "grey.png")
    Image.fromarray(np.stack([grey, grey // 2, grey // 3], axis=2)).save(folder / "studies" / "colour.png")
    write_dicom(folder / "studies" / "series", patient, spacing=(1.1, 0.9, 3.0))
    return folder


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory, scans: Path) -> Path:
    """The sample app with our bundles, fitted at 112 px on random weights: nothing to download, seconds to run."""
    folder = tmp_path_factory.mktemp("app") / "monaibundle"
    shutil.copytree(SAMPLE_APP, folder)
    for name in BUNDLES:
        shutil.copytree(ROOT / "bundles" / name / "configs", folder / "model" / name / "configs")
        for config in ("train.json", "inference.json"):
            path = folder / "model" / name / "configs" / config
            content = json.loads(path.read_text())
            content["image_size"] = [112, 112]
            content["network_def"]["backbone"]["weights"] = "random"
            if name == "dpmm":
                content["network_def"]["head"]["n_components"] = 20
            path.write_text(json.dumps(content))
        bundle_run(folder / "model" / name, "train.json", dataset_dir=str(scans / "normal"), max_epochs=2)
    return folder


@pytest.fixture(scope="session")
def expected(app: Path, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the command line makes of the studies: bundle -> folder of maps."""
    folders = {name: tmp_path_factory.mktemp(name) for name in BUNDLES}
    for name, folder in folders.items():
        studies, output = str(scans / "studies"), str(folder)
        bundle_run(app / "model" / name, "inference.json", dataset_dir=studies, output_dir=output)
    return folders


@pytest.fixture(scope="session")
def server(
    app: Path, scans: Path, expected: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """All bundles in one server, on a copy of the studies: the server writes into its data store."""
    folder = tmp_path_factory.mktemp("server")
    studies = shutil.copytree(scans / "studies", folder / "studies")
    with Server(app, studies, BUNDLES, folder / "server.log") as running:
        yield running
