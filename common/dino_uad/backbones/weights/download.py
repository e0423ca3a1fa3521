"""Getting a file over HTTP so that a half-written or wrong one is never found under its final name."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

TIMEOUT_SECONDS = 5
CHUNK = 1 << 20


@contextmanager
def atomic_file(target: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name beside ``target``, flush it to disk, and rename it when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide a shared cache folder's files from other users
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def download(url: str, target: Path, sha256: str | None = None) -> None:
    """Download ``url`` to ``target`` with a progress bar.

    The time-out holds for connecting and for every read, so that a dead network is an error and never a hang.

    Raises:
        RuntimeError: no connection, an error status, a short answer, or another hash than ``sha256``.
    """
    from tqdm import tqdm

    digest, received = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, atomic_file(target) as file:
            length = int(response.headers.get("Content-Length") or 0)
            with tqdm(total=length or None, unit="B", unit_scale=True, desc=target.name) as progress:
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                    progress.update(len(chunk))
            if length and received != length:
                raise RuntimeError(f"{url} broke off after {received} of {length} bytes")
            if sha256 and digest.hexdigest() != sha256:
                raise RuntimeError(f"{url} has sha256 {digest.hexdigest()}, expected {sha256}")
    except (OSError, HTTPException) as error:
        raise RuntimeError(f"{url}: {error}") from error
