"""Files that appear only whole."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
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
        OSError: the folder cannot be written or the disk is full; ``path`` is left as it was.
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
        reason = error.strerror or error
        raise OSError(error.errno, f"cannot write {target} ({reason}); free space or choose another folder") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


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
            if _abandoned(leftover):
                leftover.unlink()
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
            if temporary.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(temporary)):
                yield
                return


def _abandoned(temporary: Path) -> bool:
    if fcntl is not None and temporary.name.startswith(f".{HOST}"):
        with open(temporary, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                return False
            except OSError:
                pass
    return time.time() - temporary.stat().st_mtime > DAY
