"""Fitted bundles, their zips, and a Python that has no dino_uad installed."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from small_bundle import BUNDLES, fit, overrides

from dino_uad.export.bundle import export_bundle


@pytest.fixture(scope="session")
def fitted(tmp_path_factory) -> Callable[[str], Path]:
    """``fitted(name)`` is a copy of a bundle as it is after training, made once."""
    folder = tmp_path_factory.mktemp("fitted")

    def get(name: str) -> Path:
        if not (folder / name).exists():
            ignored = shutil.ignore_patterns("models", "eval", "cache")
            shutil.copytree(BUNDLES / name, folder / name, ignore=ignored)
            fit(name, folder / name / "models" / "model.pt")
            (folder / name / "eval").mkdir()
            (folder / name / "eval" / "metrics.json").write_text("{}")
        return folder / name

    return get


@pytest.fixture(scope="session")
def exported(fitted, tmp_path_factory) -> Callable[[str], Path]:
    """``exported(name)`` is the zip of :func:`fitted`, made once."""
    folder = tmp_path_factory.mktemp("dist")
    return lambda name: (
        next(folder.glob(f"{name}_v*"), None) or export_bundle(str(fitted(name)), str(folder), **overrides(name))
    )


@pytest.fixture(scope="session")
def alone(tmp_path_factory) -> Callable[..., str]:
    """``alone(folder, *arguments)`` runs Python in ``folder`` with the requirements but without this repository.

    Nor is anything left by which Python knows that a package of this name is installed, as its version.
    """
    packages = tmp_path_factory.mktemp("packages")
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for installed in Path(place).iterdir():
            if "dino_uad" not in installed.name and not (packages / installed.name).exists():
                (packages / installed.name).symlink_to(installed)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}

    def run(folder: Path, *arguments: str, status: int = 0) -> str:
        # Without `site` (-S) nothing else is found that is installed.
        line = [sys.executable, "-S", *arguments]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == status, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    return run
