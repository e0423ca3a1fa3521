"""Where the bundles are, and ``python -m monai.bundle run`` on one of them, as a person would type it."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dino_uad.verbatim import as_override, verbatim

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

logger = logging.getLogger(__name__)

WORKFLOWS = {
    "train": ("train.json",),
    "evaluate": ("train.json", "evaluate.json"),
    "inference": ("inference.json",),
}
OF_RUNS = ("models", "eval", "cache", "runs")
"""Folders of a bundle that its runs make."""


def shipped_bundles() -> dict[str, Path]:
    """The bundles that came with this package, by name: in its checkout, or inside it where pip has installed it."""
    package = Path(__file__).resolve().parent
    for folder in (package / "bundled", package.parents[1] / "bundles"):
        found = {path.parents[1].name: path.parents[1] for path in sorted(folder.glob("*/configs/metadata.json"))}
        if found:
            return found
    return {}


def find_bundle(name: str) -> Path:
    """The folder of a bundle: a path, or a name in ``bundles/`` of the working directory or among the shipped ones.

    Raises:
        FileNotFoundError: there is none; the places that were searched are named.
    """
    shipped = shipped_bundles()
    places = [Path(os.path.expanduser(name)), Path("bundles") / name]
    places += [path for key, path in shipped.items() if key == name]
    for place in places:
        if (place / "configs" / "metadata.json").is_file():
            return place.resolve()
    searched = ", ".join(str(place) for place in places)
    raise FileNotFoundError(
        f"no bundle {name!r} found (a folder with configs/metadata.json); searched {searched}; shipped are "
        f"{', '.join(shipped) or 'none'}. Give its folder, or write the shipped ones with: dino-uad init"
    )


def init(folder: str = "bundles") -> list[str]:
    """Write the shipped bundles into a folder of yours, where their configs can be run, edited and fitted.

    Args:
        folder: made when needed; what it already holds stays.

    Returns:
        The bundles' folders.

    Raises:
        FileExistsError: a bundle of that name is there already; then nothing is written.
        FileNotFoundError: this copy of the package has none; a shared bundle carries such a copy.
    """
    from dino_uad.files import atomic_path, new_folder  # they import torch

    targets = {source: Path(os.path.expanduser(folder)) / name for name, source in shipped_bundles().items()}
    if not targets:
        raise FileNotFoundError(
            "no bundles came with this copy of dino_uad; it was made for the bundle that carries it. Install dino-uad, "
            "or clone its repository"
        )
    for target in targets.values():
        if target.exists():
            raise FileExistsError(f"{target} is there already and stays as it is; choose another folder, or move it")
    for source, target in targets.items():
        with new_folder(target) as copied:
            for path in sorted(path for path in source.rglob("*") if path.is_file()):
                name = path.relative_to(source)
                if name.parts[0] not in OF_RUNS:
                    with atomic_path(copied / name) as temporary:
                        temporary.write_bytes(path.read_bytes())  # without the permissions of an installed package
    print(
        f"wrote {', '.join(path.name for path in targets.values())} to {folder}; each one's docs/README.md says how on"
    )
    return [str(target) for target in targets.values()]


def configured(
    bundle: str, workflow: str, folder: Path, dataset_dir: str | Path, image_size: int, **overrides: Any
) -> ConfigParser:
    """The configs of one workflow of a bundle, to be run in this process (:func:`run_steps`).

    Args:
        bundle: its name or folder.
        workflow: a key of :data:`WORKFLOWS`.
        folder: for model and results; embeddings are cached beside it, where fits of several bundles share them.
        dataset_dir: the images.
        image_size: side of the network's input in pixels.
        overrides: other config keys.
    """
    from monai.bundle import ConfigParser

    root = find_bundle(bundle)
    parser = ConfigParser()
    parser.read_config([root / "configs" / file for file in WORKFLOWS[workflow]])
    places = {"ckpt_dir": folder, "output_dir": folder, "cache_dir": folder.parent / "cache"}
    places |= {"bundle_root": root, "dataset_dir": dataset_dir}
    size = {"image_size": [image_size, image_size]}
    parser.update({key: verbatim(str(place)) for key, place in places.items() if key in parser})
    parser.update({key: as_override(value) for key, value in {**size, **overrides}.items()})
    return parser


def run_steps(parser: ConfigParser) -> None:
    """Run what :func:`configured` gave; after a training the parser has the fitted ``network``."""
    for step in ("initialize", "run", "finalize"):
        parser.get_parsed_content(step)


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
