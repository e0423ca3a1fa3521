"""Command line verbs of the embedding cache: ``python -m dino_uad cache list DIR | prune DIR``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dino_uad.embeddings.identity import code_version
from dino_uad.embeddings.inventory import Shard, days_unused, find_early_records, look_at_shards, read_facts, stores
from dino_uad.embeddings.shard import DAMAGE, empty_rows
from dino_uad.embeddings.store import FACTS, shards
from dino_uad.files import remove_leftovers
from dino_uad.settings import require_number

GB = 1e9


class CacheCommands:
    """Embeddings on this machine."""

    def list(self, cache_dir: str) -> dict[str, Any]:
        """Every store of a cache folder: backbone, embedding, entries, slices, size, and when it was last used."""
        found = [_summary(folder) for folder in stores(cache_dir)]
        for store in found:
            print(
                f"{store.name}  layers {store.layers}  {store.embedding}  {store.entries} entries  "
                f"{store.slices} slices  {store.bytes / GB:.3f} GB  used {store.days_unused:.0f} days ago"
                + ("" if store.current else "  made by another version: not used any more")
            )
        print(f"{len(found)} stores, {sum(store.bytes for store in found) / GB:.3f} GB in {cache_dir}")
        return {"cache_dir": cache_dir, "stores": [asdict(store) for store in found]}

    def prune(
        self, cache_dir: str, days: float = 30, max_gb: float | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        """Remove what no run can use or none has used for long, and say how much that was.

        Removed are files of killed runs and of versions before 0.2, damaged files, embeddings that another version of
        the package made and nobody used for a day, and embeddings unused for ``days``. Other files in the folder stay.

        Args:
            cache_dir: folder of the cache.
            days: embeddings unused for so long are removed.
            max_gb: then those unused longest, until no more than so many gigabytes are left.
            dry_run: only say what would be removed.

        Raises:
            ValueError: a number below 0, which would remove all.
        """
        require_number("days", days, 0)
        if max_gb is not None:
            require_number("max_gb", max_gb, 0)
        condemned = dict(_condemned(cache_dir, days, max_gb))
        if not dry_run:
            for folder in stores(cache_dir):
                remove_leftovers(folder)
            _remove(condemned)
            for folder in stores(cache_dir):
                if not shards(folder) and days_unused(folder / FACTS) > 1:  # a run that has just begun has none yet
                    _remove_store(folder)
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


def _summary(folder: Path) -> Summary:
    facts, files = read_facts(folder), look_at_shards(folder)
    contents = [pair for shard in files for pair in shard.contents or ()]
    return Summary(
        name=folder.name,
        layers=facts.get("backbone", {}).get("layers", []),
        embedding=_layout(files),
        entries=len({key for key, _ in contents}),
        slices=sum(dict(contents).values()),
        bytes=sum(shard.bytes for shard in files),
        days_unused=min([days_unused(folder / FACTS), *(shard.days_unused for shard in files)]),
        current=facts.get("code") == code_version(),
    )


def _layout(files: Sequence[Shard]) -> str:
    """Channels, rows and columns of the first embedding that can be read."""
    for shard in files:
        if any(count for _, count in shard.contents or ()):
            with suppress(OSError, *DAMAGE):  # gone meanwhile
                return "×".join(map(str, empty_rows(shard.path, 0)["embedding"].shape[1:]))
    return "?"


def _condemned(cache_dir: str, days: float, max_gb: float | None) -> Iterator[tuple[Path, int]]:
    """Yield the files to remove and their sizes in bytes."""
    kept = []
    for folder in stores(cache_dir):
        most = days if read_facts(folder).get("code") == code_version() else min(days, 1)
        for shard in look_at_shards(folder):
            if shard.contents is None or shard.days_unused > most:
                yield shard.path, shard.bytes
            else:
                kept.append(shard)
    yield from find_early_records(cache_dir)
    total = sum(shard.bytes for shard in kept)
    for shard in sorted(kept, key=lambda shard: shard.days_unused, reverse=True):
        if max_gb is not None and total > max_gb * GB:
            total -= shard.bytes
            yield shard.path, shard.bytes


def _remove_store(folder: Path) -> None:
    """Remove a store without shards; a folder in which somebody put another file stays."""
    with suppress(OSError):
        (folder / FACTS).unlink()
        folder.rmdir()


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
