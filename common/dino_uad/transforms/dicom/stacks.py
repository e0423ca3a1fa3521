"""Frames to stacks: what lies in parallel, one behind the other, is one scan; whatever else a series holds is another.

A series may hold several phases, b-values or echoes of the same slices, a localiser, reformats along another
direction, or radiographs that share nothing but their number. Frames are grouped by patient, study, series, size and
orientation; where several lie at one position, by the attributes that tell them apart.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cache

import numpy as np

from dino_uad.transforms.dicom.frames import MARKS, Frame
from dino_uad.transforms.dicom.geometry import Spacing, spacing_of
from dino_uad.transforms.dicom.patient import with_issuers
from dino_uad.transforms.dicom.pixels import same_pixels

logger = logging.getLogger(__name__)

SAME_DIRECTION = 1e-3  # of direction cosines: 0.3 mm at the end of a 300 mm row
SAME_PLACE = 0.01  # mm
MARK_NAMES = tuple(dict.fromkeys(name for name, *_ in MARKS))
REPEAT = "repeat"


@dataclass(frozen=True)
class Stack:
    """Frames that make one scan, in the order of their positions, or a single picture without one."""

    frames: tuple[Frame, ...]
    marks: tuple[tuple[str, str], ...] = ()
    """Header values that tell it from other stacks of its series."""

    @property
    def name(self) -> str:
        """Name to choose it by: series number, modality, plane, size, marks; no text that a person typed in."""
        first = self.frames[0]
        size = f"{len(self.frames)} x {first.shape[1]}x{first.shape[0]}"
        parts = [f"series {first.series_number or '?'}", first.modality, plane(first), size]
        return ", ".join([*parts, *(f"{name} {value}" for name, value in self.marks)])

    def matches(self, pattern: str) -> bool:
        """Whether a shell pattern matches its number, its name or the series' description."""
        first = self.frames[0]
        texts = (first.series_number, self.name, f"{first.description} {self.name}", first.description)
        return any(fnmatch(text.lower(), pattern.lower()) for text in texts)

    @property
    def spacing(self) -> Spacing:
        return spacing_of(self.frames)


def plane(frame: Frame) -> str:
    """axial, coronal or sagittal, with "oblique" where it is more than 5 degrees off; "no position" without one."""
    if frame.orientation is None:
        return "no position"
    across = np.abs(frame.normal)
    name = ("sagittal", "coronal", "axial")[int(across.argmax())]
    return name if across.max() > np.cos(np.deg2rad(5)) else f"oblique {name}"


def stacks_of(frames: Iterable[Frame]) -> list[Stack]:
    """Group frames to stacks, in the order of series numbers; copies of one file count once."""
    groups: list[list[Frame]] = []
    frames = list(frames)
    patients = with_issuers([frame.patient for frame in frames])
    known = (replace(frame, patient=patient) for frame, patient in zip(frames, patients, strict=True))
    for frame in _without_copies(known):
        group = None if frame.position is None and frame.frames == 1 else _group(frame, groups)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    stacks = [stack for group in groups for stack in _split(group)]
    return _told_apart(sorted(stacks, key=lambda stack: (stack.frames[0].series_number.zfill(6), -len(stack.frames))))


def _without_copies(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames, of several that are one only the first: equal in their UID, and in place, number and pixels as well.

    Careless anonymising gives all slices one UID.
    """
    seen: dict[tuple, list[Frame]] = defaultdict(list)
    same, shared = cache(same_pixels), []
    for frame in frames:
        known = seen[*_belongs_to(frame), frame.uid, frame.index] if frame.uid else []
        if any(_same_place(frame, other) and same(frame.file, other.file) for other in known):
            continue
        if known:
            shared.append(frame.file)
        known.append(frame)
        yield frame
    if files := list(dict.fromkeys(shared)):
        logger.warning(
            "%s: %d DICOM files have the SOPInstanceUID of another, but another position, number or other pixels; each "
            "is taken for an image of its own",
            files[0].parent,
            len(files),
        )


def _same_place(one: Frame, other: Frame) -> bool:
    return (one.position, one.orientation, one.instance) == (other.position, other.orientation, other.instance)


def _belongs_to(frame: Frame) -> tuple[str, str, str]:
    """Patient, study and series: anonymised files may share the last, or have none."""
    return frame.patient, frame.study, frame.series


def _told_apart(stacks: list[Stack]) -> list[Stack]:
    """The stacks, with a number for the patient, or the study, where they are of several, and no two of one name."""
    for name in ("patient", "study"):
        owners = list(dict.fromkeys(getattr(stack.frames[0], name) for stack in stacks))
        if len(owners) > 1:
            numbers = {owner: str(number) for number, owner in enumerate(owners, 1)}
            told = (((name, numbers[getattr(stack.frames[0], name)]), *stack.marks) for stack in stacks)
            stacks = [Stack(stack.frames, marks) for stack, marks in zip(stacks, told, strict=True)]
            break
    return _named_apart(stacks)


def _named_apart(stacks: list[Stack]) -> list[Stack]:
    """The stacks, those of one name with the size of their pixels, or, if that is the same, with their first file."""
    for word, told in (("pixels", _pixel_size), ("first file", lambda frame: frame.file.name)):
        count = Counter(stack.name for stack in stacks)
        values = defaultdict(set)
        for stack in stacks:
            values[stack.name].add(told(stack.frames[0]))
        stacks = [
            Stack(stack.frames, (*stack.marks, (word, told(stack.frames[0]))))
            if count[stack.name] > 1 and len(values[stack.name]) > 1
            else stack
            for stack in stacks
        ]
    return stacks


def _pixel_size(frame: Frame) -> str:
    return "of no stated size" if frame.no_spacing else " x ".join(f"{size:g}" for size in frame.spacing[::-1]) + " mm"


def _group(frame: Frame, groups: Sequence[list[Frame]]) -> list[Frame] | None:
    """The group that a frame goes with."""
    for group in groups:
        other = group[0]
        if (_belongs_to(frame), frame.shape, frame.samples) != (_belongs_to(other), other.shape, other.samples):
            continue
        if frame.position is None or other.position is None:
            if frame.file == other.file and frame.position is other.position:
                return group
        elif np.allclose(frame.orientation, other.orientation, rtol=0, atol=SAME_DIRECTION) and np.allclose(
            frame.spacing, other.spacing, rtol=1e-3
        ):
            return group
    return None


def _split(frames: list[Frame]) -> list[Stack]:
    """Split frames in parallel until no two lie at one position, and an uneven stack if that makes all parts even."""
    if frames[0].position is None:
        return [Stack(tuple(frames))]
    normal = frames[0].normal
    frames = sorted(frames, key=lambda frame: (float(normal @ frame.position), frame.instance, frame.index))
    parts: list[Stack] = [Stack(tuple(frames))]
    for name in MARK_NAMES:
        parts = [smaller for part in parts for smaller in _refine(part, name)]
    return [smaller for part in parts for smaller in _by_repeat(part)]


def _refine(stack: Stack, name: str) -> list[Stack]:
    """Split by a mark where that explains why several frames lie at one position, or why the spacing is uneven."""
    parts: dict[str, list[Frame]] = defaultdict(list)
    for frame in stack.frames:
        parts[frame.marks.get(name, "none")].append(frame)
    smaller = [Stack(tuple(part), (*stack.marks, (name, value))) for value, part in parts.items()]
    most = _most_at_one_place(stack.frames)
    if len(parts) == 1:
        return [stack]
    if most > 1:
        fewer = max(_most_at_one_place(part.frames) for part in smaller) < most
        return smaller if fewer and len(parts) <= most else [stack]
    even = not stack.spacing.even and all(len(part.frames) > 2 and part.spacing.even for part in smaller)
    return smaller if even else [stack]


def _most_at_one_place(frames: Sequence[Frame]) -> int:
    return max(Counter(_place(frame) for frame in frames).values())


def _place(frame: Frame) -> int:
    return round(float(frame.normal @ frame.position) / SAME_PLACE)


def _by_repeat(stack: Stack) -> list[Stack]:
    """Where nothing tells frames at one position apart: the first, the second, ... image of each position."""
    if _most_at_one_place(stack.frames) == 1:
        return [stack]
    repeats: dict[int, list[Frame]] = defaultdict(list)
    count: Counter[int] = Counter()
    for frame in stack.frames:
        count[_place(frame)] += 1
        repeats[count[_place(frame)]].append(frame)
    return [Stack(tuple(part), (*stack.marks, (REPEAT, str(number)))) for number, part in repeats.items()]
