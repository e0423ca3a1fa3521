"""The backbone of a shared bundle: too large for the zip, so ``large_files.yml`` says where it is, with its hash."""

from __future__ import annotations

import json

from dino_uad.backbones.weights import SOURCES, WeightSource, locate
from dino_uad.digests import digest_file


def large_files(arch: str) -> bytes | None:
    """Content of ``large_files.yml`` for a backbone, None when it ships with the package or has no public address.

    ``python -m monai.bundle download_large_files --bundle_path BUNDLE`` fetches and checks the file; the weight store
    finds it beside ``model.pt`` (:func:`dino_uad.backbones.weights.locate`). Without it the store fetches the weights
    into the user's cache on first use.
    """
    source = SOURCES[arch]
    if source.url is None:
        return None
    fields = {
        "path": f"models/{source.file_names[0]}",
        "url": source.url,
        "hash_type": "sha256",
        "hash_val": _sha256(source),
    }
    # JSON strings are YAML strings: no YAML writer is needed.
    lines = [f"{'- ' if key == 'path' else '  '}{key}: {json.dumps(value)}" for key, value in fields.items()]
    return "\n".join(["large_files:", *lines, ""]).encode()


def _sha256(source: WeightSource) -> str:
    """The published hash, or that of the official file on this machine where none is published."""
    if source.sha256:
        return source.sha256
    found = locate(source.name)
    if found is None or found.name != source.file_names[0]:
        raise ValueError(
            f"no hash of {source.name} is published and the official file {source.file_names[0]} is not on this "
            f"machine: run `python -m dino_uad weights fetch {source.name}` with a network first"
        )
    return digest_file(found)
