"""What a folder of DICOM files holds: scans, single pictures, and files that are no image."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pydicom

from dino_uad.transforms.dicom.frames import Frame, is_dicom, read_frames
from dino_uad.transforms.dicom.patient import TAGS, patient_of, with_issuers
from dino_uad.transforms.dicom.stacks import Stack, stacks_of
from dino_uad.transforms.own_results import is_own_result

SHOWN = 8


@dataclass(frozen=True)
class DicomScan:
    """One thing to load: a folder that holds a stack, or a file (a radiograph, an enhanced object)."""

    path: Path
    files: tuple[Path, ...]


def dicom_scans(folder: str | os.PathLike[str]) -> tuple[list[DicomScan], dict[Path, str]]:
    """What to load of the DICOM files in one folder (not below it), and why each of the others is passed over.

    A folder in which several files make a stack is one scan, whichever extensions its files have: :func:`choose`
    tells later whether it holds one stack only. Where every file is a picture or stack of its own, each is a scan. A
    file that calls itself DICOM and cannot be read is a scan too, so that loading it says what is wrong.

    Returns:
        the scans, and file -> reason for those without an image: a DICOMDIR, reports, plans, segmentations.
    """
    stacks, passed, damaged = _contents(Path(folder))
    files = [tuple(dict.fromkeys(frame.file for frame in stack.frames)) for stack in stacks]
    owners = [owner for members in files for owner in members]
    if all(len(members) == 1 for members in files) and len(set(owners)) == len(owners):
        return [DicomScan(members[0], members) for members in [*files, *((path,) for path in damaged)]], passed
    return [DicomScan(Path(folder), tuple(dict.fromkeys([*owners, *damaged])))], passed


def choose(path: Path, series: str | None = None) -> Stack:
    """The one stack in a file or folder, or the one that a shell pattern chooses (see ``Stack.matches``).

    Raises:
        ValueError: there is none, or there are several; they are listed.
    """
    stacks, passed, damaged = _contents(path)
    if damaged:
        try:
            read_frames(damaged[0])
        except Exception as error:
            raise ValueError(f"{damaged[0].name}: {error}") from error
    found = [stack for stack in stacks if series is None or stack.matches(str(series))]
    if len(found) == 1:
        return found[0]
    if not stacks:
        reasons = ", ".join(sorted(set(passed.values())))
        raise ValueError(f"no DICOM image found{f' ({reasons})' if reasons else ''}; expected one scan")
    listed = "; ".join(stack.name for stack in stacks[:SHOWN])
    more = f"; and {len(stacks) - SHOWN} more" if len(stacks) > SHOWN else ""
    said = f"{len(stacks)} stacks of DICOM images" + (f", {len(found)} of which match {series!r}" if series else "")
    raise ValueError(
        f"{said}: {listed}{more}; expected one. Choose with series, a pattern for a number, the description or these "
        'words (--train_data#series "*axial*", likewise val_data, test_data and infer_data; from Python '
        'series="*axial*"), or put each into its '
        "own folder"
    )


def require_one_stack(path: str | os.PathLike[str], series: str | None = None) -> None:
    """Raise what :func:`choose` raises, with the path in front; files that cannot be read are left to loading."""
    stacks, _, damaged = _contents(Path(path))
    if not damaged and stacks:
        try:
            choose(Path(path), series)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def dicom_patients(paths: Iterable[str | os.PathLike[str] | None]) -> list[str]:
    """Hashes that are the same for all scans of one patient (:func:`~dino_uad.transforms.dicom.patient.patient_of`).

    Scans of a data set belong into one call: it tells whether a missing issuer of the patient's id matters. A hash is
    "" where the file or folder does not tell, or there is None. Files that cannot be read are left to loading.
    """
    return with_issuers(["" if path is None else dicom_patient(path) for path in paths])


def dicom_patient(path: str | os.PathLike[str]) -> str:
    """A hash for a scan (see :func:`dicom_patients`).

    It is "" where the file or folder does not tell. Files that cannot be read are left to loading.
    """
    path = Path(path)
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file() and is_dicom(file):
            with suppress(Exception):  # as in ``_parsed``
                return patient_of(pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=TAGS))
    return ""


def _contents(path: Path) -> tuple[list[Stack], dict[Path, str], list[Path]]:
    """Stacks, files passed over with reasons, and files that cannot be read."""
    files = [path] if not path.is_dir() else [file for file in sorted(path.iterdir()) if file.is_file()]
    signature = tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _parsed(signature, path.is_dir())


@lru_cache(maxsize=32)
def _parsed(
    signature: tuple[tuple[Path, int, int], ...], folder: bool
) -> tuple[list[Stack], dict[Path, str], list[Path]]:
    # Listing a data set and loading it ask for the same headers one after the other.
    frames: list[Frame] = []
    passed: dict[Path, str] = {}
    damaged: list[Path] = []
    for file in _candidates((file for file, *_ in signature), folder):
        if folder and is_own_result(file):
            passed[file] = "result of this package"
            continue
        try:
            found = read_frames(file)
        except Exception:  # pydicom raises what a damaged header makes of it; ``choose`` says it
            damaged.append(file)
            continue
        if isinstance(found, str):
            passed[file] = found
        else:
            frames += found
    return stacks_of(frames), passed, damaged


def _candidates(files: Iterable[Path], folder: bool) -> list[Path]:
    if not folder:
        return list(files)
    named = [file for file in files if not file.name.startswith(".")]
    dicom = {file for file in named if file.suffix.lower() == ".dcm" or is_dicom(file)}
    # What an interrupted copy leaves of a slice: nothing but its name.
    endings = {_ending(file) for file in dicom}
    return [file for file in named if file in dicom or (not file.stat().st_size and _ending(file) in endings)]


def _ending(file: Path) -> str:
    """The suffix in small letters; none where it is a number, as in names that are numbered or made of a UID."""
    return "" if file.suffix[1:].isdecimal() else file.suffix.lower()
