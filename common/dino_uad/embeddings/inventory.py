"""What a cache folder holds: stores with their shards, and records of versions before 0.2. Other files are not ours.

Runs may write and remove files meanwhile: what is gone when it is looked at is left out.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dino_uad.embeddings.shard import DAMAGE, read_contents, tensor_names
from dino_uad.embeddings.store import FACTS, shards
from dino_uad.files import DAY

_STORE = re.compile(r".+-[0-9a-f]{16}")
_EARLY = re.compile(r"[0-9a-f]{32}\.safetensors")
_EARLY_TENSORS = ({"embedding", "cls"}, {"embedding", "cls", "foreground"})


@dataclass(frozen=True)
class Shard:
    """A file of embeddings; ``contents`` is empty if it may not be read, None if it is damaged."""

    path: Path
    bytes: int
    days_unused: float
    contents: list[tuple[str, int]] | None


def stores(cache_dir: str | Path) -> list[Path]:
    """The folders that are stores, by their names and ``store.json``.

    Raises:
        FileNotFoundError: no such cache.
    """
    if not Path(cache_dir).is_dir():
        raise FileNotFoundError(
            f"{cache_dir}: no such folder; expected the cache_dir of a fit, by default the folder cache of a bundle"
        )
    return sorted(path.parent for path in Path(cache_dir).glob(f"*/{FACTS}") if _STORE.fullmatch(path.parent.name))


def read_facts(folder: Path) -> dict[str, Any]:
    """Read a store's ``store.json``; empty if it is missing or not understood."""
    with suppress(OSError, ValueError):
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if isinstance(facts, dict) and isinstance(facts.get("backbone"), dict):
            return facts
    return {}


def look_at_shards(folder: Path) -> list[Shard]:
    """The files of embeddings of a store, in the order of their names."""
    return [shard for path in shards(folder) if (shard := _look_at(path)) is not None]


def _look_at(path: Path) -> Shard | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    try:
        contents: list[tuple[str, int]] | None = read_contents(path)
    except OSError:
        if not path.exists():
            return None
        contents = []
    except DAMAGE:
        contents = None
    return Shard(path, status.st_size, days_since(status.st_mtime), contents)


def find_early_records(cache_dir: str | Path) -> Iterator[tuple[Path, int]]:
    """Records as versions before 0.2 wrote them, one an entry, and their sizes: known by name and tensors.

    A cache folder may hold weights of its user as well, which are safetensors files too.
    """
    for path in sorted(Path(cache_dir).glob("*.safetensors")):
        if _EARLY.fullmatch(path.name):
            with suppress(OSError, *DAMAGE):  # gone, or not to be told from a file of somebody else
                if tensor_names(path) in _EARLY_TENSORS:
                    yield path, path.stat().st_size


def days_unused(path: Path) -> float:
    """Since a file was last changed, or said to be in use; none if it is gone."""
    try:
        return days_since(path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def days_since(moment: float) -> float:
    """Days from a time in seconds until now."""
    return max(0.0, time.time() - moment) / DAY
