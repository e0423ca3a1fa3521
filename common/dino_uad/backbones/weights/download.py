"""Getting a file over HTTP so that half of one, or a wrong one, is never found under its final name."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from dino_uad.files import atomic_path

TIMEOUT_SECONDS = 5
CHUNK = 1 << 20


def download(url: str, target: Path, sha256: str | None = None) -> None:
    """Download ``url`` to ``target`` with a progress bar.

    The time-out holds for connecting and for every read, so that a dead network is an error and never a hang.

    Raises:
        RuntimeError: no connection, an error status, a short answer, or another hash than ``sha256``.
    """
    from tqdm import tqdm

    digest, received = hashlib.sha256(), 0
    try:
        with (
            urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response,
            atomic_path(target) as temporary,
            open(temporary, "wb") as file,
        ):
            length = int(response.headers.get("Content-Length") or 0)
            with tqdm(total=length or None, unit="B", unit_scale=True, desc=target.name) as progress:
                for chunk in _chunks(response, url):
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


def _chunks(response: BinaryIO, url: str) -> Iterator[bytes]:
    """Yield the response in chunks; errors of the network are raised apart from those of the disk."""
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise RuntimeError(f"{url}: {error}") from error
