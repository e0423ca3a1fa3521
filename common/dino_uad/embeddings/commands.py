"""Command line verbs of the embedding cache: ``python -m dino_uad cache list DIR | prune DIR``."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dino_uad.embeddings.identity import code_version
from dino_uad.embeddings.shard import DAMAGE, empty_rows, read_contents
from dino_uad.embeddings.store import FACTS, shards
from dino_uad.files import DAY, remove_leftovers

GB = 1e9


class CacheCommands:
    """Embeddings on this machine."""

    def list(self, cache_dir: str) -> dict[str, Any]:
        """Every store of a cache folder: backbone, embedding, entries, slices, size, and when it was last used."""
        stores = [_summary(folder) for folder in _stores(cache_dir)]
        for store in stores:
            print(
                f"{store.name}  layers {store.layers}  {store.embedding}  {store.entries} entries  "
                f"{store.slices} slices  {store.bytes / GB:.3f} GB  used {store.days_unused:.0f} days ago"
                + ("" if store.current else "  made by another version: not used any more")
            )
        print(f"{len(stores)} stores, {sum(store.bytes for store in stores) / GB:.3f} GB in {cache_dir}")
        return {"cache_dir": cache_dir, "stores": [asdict(store) for store in stores]}

    def prune(
        self, cache_dir: str, days: float = 30, max_gb: float | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        """Remove what no run can use or none has used for long, and say how much that was.

        That are files of killed runs and of versions before 0.2, damaged files, embeddings of another version of the
        package that nobody used for a day, and embeddings unused for ``days``.

        Args:
            cache_dir: folder of the cache.
            days: embeddings unused for so long are removed.
            max_gb: then those unused longest, until no more than so many gigabytes are left.
            dry_run: only say what would be removed.
        """
        condemned = {path: path.stat().st_size for path in _condemned(cache_dir, days, max_gb)}
        if not dry_run:
            for folder in _stores(cache_dir):
                remove_leftovers(folder)
            _remove(condemned)
            for folder in _stores(cache_dir):
                if not shards(folder) and _days_unused(folder / FACTS) > 1:  # a run that has just begun has none yet
                    shutil.rmtree(folder)
        size = sum(condemned.values())
        print(f"{'would remove' if dry_run else 'removed'} {len(condemned)} files, {size / GB:.3f} GB, of {cache_dir}")
        return {"cache_dir": cache_dir, "files": [str(path) for path in condemned], "bytes": size}


@dataclass(frozen=True)
class Summary:
    """What ``cache list`` says of a store."""

    name: str
    layers: list[int]
    embedding: str
    entries: int
    slices: int
    bytes: int
    days_unused: float
    current: bool


def _stores(cache_dir: str) -> list[Path]:
    if not Path(cache_dir).is_dir():
        raise FileNotFoundError(
            f"{cache_dir}: no such folder; expected the cache_dir of a fit, by default the folder cache of a bundle"
        )
    return sorted(path.parent for path in Path(cache_dir).glob(f"*/{FACTS}"))


def _summary(folder: Path) -> Summary:
    facts, files = _facts(folder), shards(folder)
    contents = [pair for path in files for pair in _contents(path) or ()]
    layout = next((empty_rows(path, 0) for path in files if sum(count for _, count in _contents(path) or ())), {})
    return Summary(
        name=folder.name,
        layers=facts.get("backbone", {}).get("layers", []),
        embedding="×".join(map(str, layout["embedding"].shape[1:])) if layout else "?",
        entries=len({key for key, _ in contents}),
        slices=sum(dict(contents).values()),
        bytes=sum(path.stat().st_size for path in files),
        days_unused=min(map(_days_unused, [folder / FACTS, *files])),
        current=facts.get("code") == code_version(),
    )


def _condemned(cache_dir: str, days: float, max_gb: float | None) -> Iterator[Path]:
    yield from (path for path in Path(cache_dir).glob("*.safetensors") if not path.name.startswith("."))
    kept = []
    for folder in _stores(cache_dir):
        most = days if _facts(folder).get("code") == code_version() else min(days, 1)
        for path in shards(folder):
            if _contents(path) is None or _days_unused(path) > most:
                yield path
            else:
                kept.append(path)
    total = sum(path.stat().st_size for path in kept)
    for path in sorted(kept, key=_days_unused, reverse=True):
        if max_gb is not None and total > max_gb * GB:
            total -= path.stat().st_size
            yield path


def _remove(paths: Iterable[Path]) -> None:
    """Remove what can be removed.

    Raises:
        OSError: some could not; the first is named.
    """
    refused: list[OSError] = []
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            refused.append(error)
    if refused:
        first = refused[0]
        raise OSError(
            f"{len(refused)} files could not be removed, the first {first.filename} ({first.strerror}): run this as "
            "their owner, and where the cache may be written"
        ) from first


def _facts(folder: Path) -> dict[str, Any]:
    with suppress(ValueError):
        return json.loads((folder / FACTS).read_text(encoding="utf-8"))
    return {}


def _contents(path: Path) -> list[tuple[str, int]] | None:
    """What is in a shard; nothing if it may not be read, None if it is damaged."""
    try:
        return read_contents(path)
    except OSError:
        return []
    except DAMAGE:
        return None


def _days_unused(path: Path) -> float:
    return max(0.0, time.time() - path.stat().st_mtime) / DAY
