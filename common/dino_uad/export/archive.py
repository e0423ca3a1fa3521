"""Zip files that are the same bytes for the same content, and that are not believed when they come from elsewhere."""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath

from dino_uad.files import atomic_path

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can state: the same for every file, on every machine
MAX_FILES = 10_000
MAX_BYTES = 8 << 30
MAX_RATIO = 200  # of the unpacked size to the file's; source code and tensors stay well below 20
_UNSAFE = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')


def write_archive(entries: Mapping[str, bytes | Path], target: Path) -> None:
    """Write ``entries`` (name in the zip, with ``/``, to content or file) to ``target``, atomically.

    Names are sorted, times and permissions fixed: the bytes depend on the content alone (and on the zlib at hand).

    Raises:
        ValueError: a name that :func:`extract_archive` would refuse.
    """
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted(entries):
            content = entries[name]
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system = 3  # Unix, wherever it is written: else the permissions would not count
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            if problem := _problem(info):
                raise ValueError(f"{name!r} {problem}, which import refuses: give the folder or file another name")
            info.file_size = content.stat().st_size if isinstance(content, Path) else len(content)
            source = content.open("rb") if isinstance(content, Path) else BytesIO(content)
            with source, archive.open(info, "w") as member:
                shutil.copyfileobj(source, member, 1 << 20)


def extract_archive(path: Path, folder: Path) -> str:
    """Unpack a zip from an unknown sender into the existing, empty ``folder``; returns its one top folder's name.

    What macOS adds where it packs a folder again (``__MACOSX/``, ``.DS_Store``) is left out. Everything is checked
    before the first file is written. Only regular files are ever created, with default permissions, whatever the zip
    asks for.

    Raises:
        ValueError: not a zip, damaged, encrypted, too large, or with a member that has no place in a bundle: an
            absolute path, ``..``, a link or device, a name that some system reads in another way, a duplicate.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir() and not _is_of_macos(info)]
            top = _check_members(path, archive.infolist())
            for info in members:
                # A member yields no more than the size checked above, then its checksum has to be right.
                with (
                    archive.open(info) as source,
                    atomic_path(folder / info.filename) as temporary,
                    temporary.open("wb") as file,
                ):
                    shutil.copyfileobj(source, file, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path} is not an intact zip file ({error}): get it again") from error
    return top


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> str:
    """Check names, kinds and sizes of all members, from the zip's table of contents; returns the one top folder."""
    unpacked, packed = sum(info.file_size for info in members), path.stat().st_size
    if len(members) > MAX_FILES or unpacked > MAX_BYTES or unpacked > MAX_RATIO * packed:
        raise ValueError(
            f"{path} unpacks to {len(members)} files of {unpacked} bytes from {packed}; at most {MAX_FILES} files, "
            f"{MAX_BYTES} bytes and {MAX_RATIO} times the zip's size are accepted: this is no bundle"
        )
    for info in members:
        problem = _problem(info)
        if problem:
            raise ValueError(f"{path}: member {info.filename!r} {problem}; refused, nothing was unpacked")
    members = [info for info in members if not _is_of_macos(info)]
    # Case-folded, because two names may be one file elsewhere; a file may not be another's folder either.
    names = [info.filename.casefold() for info in members if not info.is_dir()]
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if len(set(names)) < len(names) or folders & set(names):
        raise ValueError(f"{path} holds two members of one name; refused, nothing was unpacked")
    tops = sorted({PurePosixPath(info.filename).parts[0] for info in members})
    if len(tops) != 1 or any("/" not in info.filename for info in members):
        raise ValueError(f"{path} holds {tops or 'nothing'} at the top; a bundle's zip has one folder, its name")
    return tops[0]


def _is_of_macos(info: zipfile.ZipInfo) -> bool:
    """Whether a member describes how a folder looked to macOS: no part of what was packed."""
    parts = PurePosixPath(info.filename).parts
    return parts[:1] == ("__MACOSX",) or parts[-1:] == (".DS_Store",)


def _problem(info: zipfile.ZipInfo) -> str | None:
    """What is wrong with a member, None if nothing is. ``orig_filename`` is the name before Python tidied it."""
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    parts = name.rstrip("/").split("/")
    if _UNSAFE.search(name) or any(part in ("", ".", "..") or part.endswith((" ", ".")) for part in parts):
        return "has an unsafe name"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    if info.flag_bits & 1:
        return "is encrypted"
    return None
