"""From a trained bundle to the model zoo's zip, and back."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dino_uad.backbones.weights import SOURCES
from dino_uad.digests import digest_file
from dino_uad.errors import explain
from dino_uad.export.archive import extract_archive, write_archive
from dino_uad.export.large_files import large_files
from dino_uad.export.needed import PACKAGE, needed_files
from dino_uad.overrides import check_override, put_overrides
from dino_uad.verbatim import verbatim

if TYPE_CHECKING:
    from dino_uad.detector import AnomalyDetector

logger = logging.getLogger(__name__)

REQUIRED = ("LICENSE", "docs/README.md", "configs/metadata.json", "configs/inference.json")
ZOO_LIMIT = 25 << 20  # bytes of one file


def export_bundle(bundle: str, out: str = "dist", model: str | None = None, **overrides: Any) -> Path:
    """Write ``OUT/<name>_v<version>.zip``: configs, docs, licence, the fitted head, and the code they need.

    Args:
        bundle: the bundle's folder.
        out: folder of the zip.
        model: the fitted model; ``models/model.pt`` of the bundle when None.
        overrides: the config overrides that the model was trained with (``--image_size "[224,224]"``); they become
            part of the shared configs, so that whoever receives the bundle need not know them.

    Raises:
        FileNotFoundError: the bundle is incomplete or has not been trained.
        ValueError: the model does not fit the configs, an override names nothing, or the backbone cannot be shared.
    """
    root = Path(bundle).resolve()
    weights = Path(model) if model else root / "models" / "model.pt"
    missing = [name for name in REQUIRED if not (root / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{bundle} is not a bundle: {', '.join(missing)} not found; expected a folder such as bundles/dpmm"
        )
    if not weights.is_file():
        raise FileNotFoundError(f"{weights} not found: run train first, or name the fitted model with --model")
    files = _own_files(root) | {"models/model.pt": weights} | _overridden(root, overrides)
    network = _build(files, weights, root)
    files |= _metadata(files, network.image_size)
    configs = [_read(content).decode() for name, content in files.items() if name.startswith("configs/")]
    files |= package_files(network.backbone.arch, configs)
    files |= _backbone(network, files)
    version = json.loads(_read(files["configs/metadata.json"]))["version"]
    if weights.stat().st_size > ZOO_LIMIT:
        warnings.warn(
            f"{weights} has {weights.stat().st_size / 2**20:.1f} MiB, the model zoo takes files up to "
            f"{ZOO_LIMIT >> 20} MiB; the zip holds it all the same. To publish it there, upload it and list its "
            "address and hash in large_files.yml, or fit with a coreset",
            stacklevel=2,
        )
    target = Path(out) / f"{root.name}_v{version}.zip"
    write_archive({f"{root.name}/{name}": content for name, content in files.items()}, target)
    return target


def import_bundle(file: str, out: str = "bundles", sha256: str | None = None) -> Path:
    """Unpack a bundle's zip into ``OUT/<name>``, whole or not at all.

    Args:
        file: the zip.
        out: folder of bundles.
        sha256: hash that the zip must have; None takes any.

    Raises:
        FileNotFoundError: no such file.
        FileExistsError: there is a bundle of this name already.
        ValueError: the file has another hash, is unsafe to unpack, or is not a bundle.
    """
    path, folder = Path(file), Path(out)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a bundle's zip, as export writes it. Check the path")
    if sha256 is not None:
        found = digest_file(path)
        if found != sha256.lower():
            raise ValueError(f"{path} has sha256 {found}, expected {sha256}: get the file again")
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".import-", dir=folder))
    try:
        top = extract_archive(path, temporary)
        missing = [name for name in REQUIRED if not (temporary / top / name).is_file()]
        if missing:
            raise ValueError(f"{path} is not a bundle: {top}/ lacks {', '.join(missing)}")
        target = folder / top
        if target.exists():
            raise FileExistsError(f"{target} exists: move it away, or import into another folder with --out")
        (temporary / top).rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _own_files(root: Path) -> dict[str, bytes | Path]:
    """Configs, docs and licence; not what runs leave behind."""
    found = [root / "LICENSE", *(root / "configs").iterdir(), *(root / "docs").rglob("*")]
    return {path.relative_to(root).as_posix(): path for path in found if path.is_file() and path.name[0] != "."}


def _overridden(root: Path, overrides: Mapping[str, Any]) -> dict[str, bytes | Path]:
    """The configs in which an override changes something, with it."""
    from monai.bundle import ConfigParser

    changed: dict[str, bytes | Path] = {}
    refused: dict[str, list[str]] = {key: [] for key in overrides}
    configs = [path for path in sorted((root / "configs").glob("*.json")) if path.name != "metadata.json"]
    for path in configs:
        parser = ConfigParser(json.loads(path.read_text(encoding="utf-8")))
        problems = {key: _refusal(key, value, parser.get()) for key, value in overrides.items()}
        here = {key: overrides[key] for key, problem in problems.items() if problem is None}
        if here:
            put_overrides(parser, here, root)
            changed[f"configs/{path.name}"] = _json(parser.get())
        for key, problem in problems.items():
            refused[key] += [problem] if problem else []
    unused = {key: problems for key, problems in refused.items() if len(problems) == len(configs)}
    if unused:
        raise ValueError(f"no config of {root.name} takes {', '.join(unused)}: {unused.popitem()[1][-1]}")
    return changed


def _refusal(key: str, value: Any, config: Mapping[str, Any]) -> str | None:
    """Why a config does not take an override; None if it does."""
    try:
        check_override(key, value, config)
    except ValueError as error:
        return str(error)
    return None


def _build(files: Mapping[str, bytes | Path], model: Path, root: Path) -> AnomalyDetector:
    """The network as the receiver will build it, with the model loaded: what does not load here is not shared."""
    from monai.bundle import ConfigParser

    parser = ConfigParser(json.loads(_read(files["configs/inference.json"])))
    parser.update({"bundle_root": verbatim(str(root)), "network_def#checkpoint": verbatim(str(model))})
    try:
        return parser.get_parsed_content("network_def")
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(
            f"{model} does not fit configs/inference.json of {root.name}: {explain(error)}. Pass export the same "
            "overrides that train was run with"
        ) from None


def _metadata(files: Mapping[str, bytes | Path], image_size: tuple[int, int]) -> dict[str, bytes | Path]:
    """``metadata.json`` with the size of image that the shared network takes."""
    content = json.loads(_read(files["configs/metadata.json"]))
    if content["version"] not in content["changelog"]:
        raise ValueError(f"configs/metadata.json: the changelog has no entry for version {content['version']}; add it")
    for tensor in (
        content["network_data_format"]["inputs"]["image"],
        content["network_data_format"]["outputs"]["pred"],
    ):
        tensor["spatial_shape"] = list(image_size)
    return {"configs/metadata.json": _json(content)}


def package_files(arch: str, configs: Iterable[str]) -> dict[str, bytes | Path]:
    """What the configs need of this package, under its own name, with the weights of ``arch`` if they ship with it."""
    found = needed_files(configs)
    if arch in SOURCES and SOURCES[arch].packaged:
        found.add(Path("backbones", "weights", SOURCES[arch].packaged))
    return {f"dino_uad/{path.as_posix()}": PACKAGE / path for path in found}


def _backbone(network: AnomalyDetector, files: Mapping[str, bytes | Path]) -> dict[str, bytes | Path]:
    """``large_files.yml`` where the backbone has a public address."""
    config = json.loads(_read(files["configs/inference.json"]))["network_def"]["backbone"]
    weights, arch = config.get("weights"), network.backbone.arch
    if weights == "random":
        return {}
    if weights is not None:
        raise ValueError(f"network_def#backbone#weights is {weights!r}, a file that the receiver does not have")
    source = SOURCES[arch]
    if source.page:
        warnings.warn(
            f"{arch} is gated ({source.licence}): the receiver has to request it at {source.page} and to save it as "
            f"models/{source.file_names[0]} in the bundle",
            stacklevel=3,
        )
    content = large_files(arch)
    return {"large_files.yml": content} if content else {}


def _read(content: bytes | Path) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=4, ensure_ascii=False) + "\n").encode()
