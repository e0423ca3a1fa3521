"""``python -m monai.bundle run`` on one of the bundles, as a person would type it."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

WORKFLOWS = {
    "train": ("train.json",),
    "evaluate": ("train.json", "evaluate.json"),
    "inference": ("inference.json",),
}


def find_bundle(name: str) -> Path:
    """The folder of a bundle: a path, or a name in ``bundles/`` of the working directory or of this checkout.

    Raises:
        FileNotFoundError: there is none; the places that were searched are named.
    """
    places = [Path(name), Path("bundles") / name, Path(__file__).resolve().parents[2] / "bundles" / name]
    for place in places:
        if (place / "configs" / "metadata.json").is_file():
            return place.resolve()
    searched = ", ".join(str(place) for place in places)
    raise FileNotFoundError(f"no bundle {name!r} found (a folder with configs/metadata.json); searched {searched}")


def command(bundle: Path, workflow: str, **overrides: Any) -> list[str]:
    """The command line of one workflow; ``overrides`` are config keys with ``#`` written as ``__``."""
    files = [str(bundle / "configs" / file) for file in WORKFLOWS[workflow]]
    line = [sys.executable, "-m", "monai.bundle", "run", "--bundle_root", str(bundle)]
    line += ["--config_file", files[0] if len(files) == 1 else str(files)]
    for key, value in overrides.items():
        line += [f"--{key.replace('__', '#')}", value if isinstance(value, str) else repr(value)]  # fire reads Python
    return line


def run(line: Sequence[str]) -> None:
    """Print and run a command line.

    Raises:
        RuntimeError: its exit status is not 0.
    """
    print("\n$", shlex.join(["python", *line[1:]]), flush=True)
    status = subprocess.run(line).returncode
    if status:
        raise RuntimeError(f"the command above ended with status {status}; its message says why")
