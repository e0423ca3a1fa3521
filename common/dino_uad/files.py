"""Files that appear only whole, and digests that say what is in them."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

PART = ".part."
DAY = 24 * 3600  # seconds


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success it is flushed to disk and renamed, otherwise removed.

    Raises:
        OSError: the folder cannot be written or the disk is full; ``path`` is left as it was.
    """
    target = Path(path)
    # The suffix stays last: writers that choose a format by suffix must see the same one.
    temporary = target.with_name(f".{uuid4().hex[:8]}{PART}{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(error.errno, f"cannot write {target} ({reason}); free space or choose another folder") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def save_torch(value: Any, path: str | os.PathLike[str]) -> None:
    """``torch.save`` through :func:`atomic_path`; equal values give equal bytes."""
    # A file, not its name: torch writes the name, here a random one, into the zip.
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            # torch's zip writer covers up the error that stopped it, such as a full disk, with one about its position.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def require_writable(folder: str | os.PathLike[str]) -> None:
    """Create ``folder`` and prove that a file can be written there, before hours of work depend on it.

    Also removes what runs killed more than a day ago left of :func:`atomic_path`.

    Raises:
        OSError: it cannot; the message names the folder.
    """
    folder = Path(folder)
    try:
        with atomic_path(folder / "write-test") as temporary:
            temporary.write_bytes(b"x" * 4096)
        (folder / "write-test").unlink(missing_ok=True)
    except OSError as error:
        reason = getattr(error.__cause__, "strerror", None) or error.strerror or error
        raise OSError(
            error.errno, f"output folder {folder} cannot be written ({reason}); free space or choose another folder"
        ) from error
    for leftover in folder.glob(f".????????{PART}*"):
        with suppress(OSError):  # another process may have removed it
            if time.time() - leftover.stat().st_mtime > DAY:
                leftover.unlink()


def digest_paths(paths: Sequence[str | os.PathLike[str]]) -> str:
    """sha256 of the bytes of files, in order; a folder (a DICOM series) counts as its files sorted by name."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
            with open(file, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def describe(thing: Any) -> Any:
    """A stable, JSON-like description of a transform, for cache keys: class names and settings, no addresses."""
    if isinstance(thing, str | int | float | bool | None):
        return thing
    if isinstance(thing, Mapping):
        return {str(key): describe(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple | set):
        return [describe(item) for item in thing]
    if isinstance(thing, type):
        return f"{thing.__module__}.{thing.__qualname__}"
    if isinstance(thing, Callable) and hasattr(thing, "__code__"):
        return f"{thing.__qualname__}:{hashlib.sha256(thing.__code__.co_code).hexdigest()}:{thing.__code__.co_consts!r}"
    settings = getattr(thing, "__dict__", None)
    if settings is None or isinstance(thing, torch.Tensor):
        return repr(thing)
    # MONAI's transforms keep a random state and, once used, a thread's tracing flag: neither is a setting.
    kept = {key: value for key, value in settings.items() if key != "R" and not isinstance(value, threading.local)}
    return [describe(type(thing)), describe(kept)]
