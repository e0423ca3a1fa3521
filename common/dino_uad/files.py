"""Files, and folders, that appear only whole."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PART = ".part."
HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
DAY = 24 * 3600  # seconds


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success it is flushed to disk and renamed, otherwise removed.

    Raises:
        OSError: the folder cannot be written or the disk is full; ``path`` is left as it was. An error that names
            another file, such as one that is read meanwhile, stays as it is.
    """
    target = Path(path)
    # The suffix stays last: writers that choose a format by suffix must see the same one.
    temporary = target.with_name(f".{HOST}{uuid4().hex[:8]}{PART}{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _in_use(temporary):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
    except OSError as error:
        if not _concerns(error, temporary, target):
            raise
        reason = error.strerror or error
        raise OSError(error.errno, f"cannot write {target} ({reason}); free space or choose another folder") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` on success and is removed otherwise.

    Raises:
        ValueError: ``path`` exists and is not an empty folder.
    """
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target}: exists and is not empty; expected a new folder. Choose another name or remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid4().hex[:8]}-{target.name}")
    temporary.mkdir()  # with the permissions that its owner gives to folders
    try:
        yield temporary
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def as_utf8(text: str) -> str:
    """A text with names of files, in which bytes that are not UTF-8 are written out: ``caf\\xe9.png``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def save_torch(value: Any, path: str | os.PathLike[str]) -> None:
    """``torch.save`` through :func:`atomic_path`; equal values give equal bytes."""
    # A file, not its name: torch writes the name, here a random one, into the zip.
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            # torch's zip writer covers up the error that stopped it, such as a full disk, with one about its position.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def write_json(value: Any, path: str | os.PathLike[str]) -> None:
    """Write a value of JSON types, indented, through :func:`atomic_path`; ValueError for NaN, which JSON has not."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def require_writable(folder: str | os.PathLike[str]) -> None:
    """Create ``folder`` and prove that a file can be written there, before hours of work depend on it.

    Also removes what killed runs left of :func:`atomic_path`.

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
    remove_leftovers(folder)


def remove_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what killed runs left of :func:`atomic_path` in a folder; return what was removed.

    A run of this computer that is alive holds a lock on its file. Of another computer's files, on a shared disk, and
    where the file system knows no locks, those count as left that nobody wrote to for a day.
    """
    removed = []
    for leftover in Path(folder).glob(f".*{PART}*"):
        with suppress(OSError):  # another process may have removed it
            if _remove_abandoned(leftover):
                removed.append(leftover)
    return removed


@contextmanager
def _in_use(temporary: Path) -> Iterator[None]:
    """Create a file and hold a lock on it, which ends with the process, however that ends."""
    if fcntl is None:
        yield
        return
    while True:
        with open(temporary, "ab") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            # Between the two lines above it may have been taken for a leftover.
            if _is_at(file, temporary):
                yield
                return


def _is_at(file: IO, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False


def _remove_abandoned(temporary: Path) -> bool:
    """Remove a file that nobody writes any more; False if somebody does.

    It goes while its lock is held: a writer that has created it and waits for the lock then finds it gone, and makes it
    again. Released first, the lock could be taken between the two, by a writer whose file would go.
    """
    if fcntl is not None and temporary.name.startswith(f".{HOST}"):
        with open(temporary, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError:
                pass  # a file system without locks
            else:
                # Another process may have removed it, and its writer made another one, since it was opened.
                mine = _is_at(file, temporary)
                if mine:
                    temporary.unlink()
                return mine
    if time.time() - temporary.stat().st_mtime <= DAY:
        return False
    temporary.unlink()
    return True


def _concerns(error: OSError, temporary: Path, target: Path) -> bool:
    """Whether an error is about a file that is written: names it, its folder, or none, as that of a full disk."""
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return True
    named = os.path.abspath(os.fsdecode(error.filename))
    written, place = os.path.abspath(temporary), os.path.abspath(target)
    return named.startswith(written) or named == place or Path(named) in Path(place).parents
