"""The part of this package that a shared bundle needs: what its configs name, and all that this imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import dino_uad

PACKAGE = Path(dino_uad.__file__).parent
ALWAYS = (
    "dino_uad.predictor",
    "dino_uad.__main__",
    "dino_uad.backbones.weights.commands",
    "dino_uad.calibrate",
    "dino_uad.data.check",
    "dino_uad.embeddings.commands",
)
"""Modules shipped besides those of the configs: ``load``, and the verbs weights, calibrate, check and cache."""
DATA_SUFFIXES = (".json", ".j2", ".css", ".md")


def needed_files(configs: Iterable[str]) -> set[Path]:
    """Paths, relative to the package, of its modules and their data that a bundle cannot do without.

    Args:
        configs: the texts of the bundle's configs.

    Raises:
        ValueError: a config names a module of this package that does not exist.
    """
    waiting = [*ALWAYS, *(name for text in configs for name in _named(text))]
    modules: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        if name not in modules:
            modules[name] = _path(name)
            waiting += [*_imports(name, modules[name]), *([name.rpartition(".")[0]] if "." in name else [])]
    folders = {path.parent for path in modules.values() if path.name == "__init__.py"}
    data = {path for folder in folders for path in folder.iterdir() if path.suffix in DATA_SUFFIXES}
    return {path.relative_to(PACKAGE) for path in {*modules.values(), *data}}


def _named(text: str) -> Iterator[str]:
    """Modules in the words ``dino_uad.room.Class`` of a config."""
    for word in re.findall(r"\bdino_uad(?:\.\w+)+", text):
        module = _longest_module(word)
        if module == "dino_uad":
            raise ValueError(f"{word}: named by a config, but dino_uad has no such module; correct the config")
        yield module


@cache
def _imports(name: str, path: Path) -> tuple[str, ...]:
    """The modules of this package that a module imports, anywhere in its code."""
    words = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            words += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            words += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(_longest_module(word) for word in words if word.partition(".")[0] == "dino_uad")


def _longest_module(word: str) -> str:
    """``dino_uad.heads.dpmm`` of ``dino_uad.heads.dpmm.DPMMHead``."""
    while _path(word) is None:
        word = word.rpartition(".")[0]
    return word


def _path(name: str) -> Path | None:
    """The file of a module or package, None if there is none."""
    place = PACKAGE.joinpath(*name.split(".")[1:])
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()), None)
