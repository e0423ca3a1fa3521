"""Which images are one patient's: a split must not cut a patient in two, and intervals resample patients."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from dino_uad.data.name_ends import (
    NAMED_SLICE,
    TIME_POINT,
    VIEW,
    patient_of,
    without_augmentation,
    without_dates,
    without_ends,
)
from dino_uad.data.persons import said_persons
from dino_uad.data.roles import Role
from dino_uad.data.shared_parts import shared_parts, shared_start, without_additions
from dino_uad.data.stems import classes_in_stems, letters
from dino_uad.data.visits import without_visits
from dino_uad.data.words import (
    ANOMALOUS,
    CHANNEL,
    CONTAINERS,
    GRADES,
    NO_NAME,
    NORMAL,
    is_anomalous,
    is_normal,
    words,
)
from dino_uad.transforms import dicom_patients

FEWEST = 3
PERSONS = {"patient", "pat", "subject", "sub", "case", "p", "id"}
EACH = "every image counts as one"


@dataclass(frozen=True)
class Patients:
    """The patient (or other unit that a split must not cut) of every image, and how that is known."""

    groups: list[str]
    patients_from: str
    doubt: str = ""
    """Note for a person where the groups look like too few patients; else empty."""

    @property
    def known(self) -> bool:
        """Whether equal groups are one person, and not pictures that are counted alike."""
        return not self.patients_from.endswith(EACH)


def find_patients(
    images: Sequence[Role], case: Callable[[Role], str], classes: set[str], pattern: str | None = None
) -> Patients:
    """Tell patients by ``pattern``, DICOM's patient id, folders, or names less their slice number, in this order.

    Args:
        images: all images.
        case: an image's name without suffix and sequence.
        classes: folders that are classes, and so no patients.
        pattern: regular expression, searched in the path below the data set's folder and then in the name, whose first
            group that matched (or whole match) is the patient.

    Raises:
        ValueError: ``pattern`` does not match an image.
    """
    if pattern:
        return Patients([_matched(pattern, image) for image in images], f"told by group_pattern {pattern}")
    identified = dicom_patients(image.path if image.volume else None for image in images)
    if all(identified) and len(set(identified)) > 1:
        return Patients(identified, "told by the patient ids of DICOM files, hashed")
    people = _counted({folder for image in images for folder in image.branch})
    branches = [
        tuple(f for f in image.branch if f in people or not (f in classes or _names_class(f))) for image in images
    ]
    folders = _patient_folders(branches)
    few = sorted(set(folders) - {""})
    if len(few) < FEWEST:
        folders = [""] * len(images)
    by_name = _by_name(images, case, branches)
    if all(folders):
        return Patients(folders, "told by folders")
    groups = [folder or name for folder, name in zip(folders, by_name.groups, strict=True)]
    told = f"told by folders; elsewhere {by_name.patients_from}" if any(folders) else by_name.patients_from
    doubt = by_name.doubt
    if few and not any(folders) and not by_name.known and all(set(letters(name)) & PERSONS for name in few):
        doubt = _too_few("folders", few)
    return Patients(groups, told, doubt)


def _matched(pattern: str, image: Role) -> str:
    match = re.search(pattern, image.relative) or re.search(pattern, image.stem)
    # Of alternatives, 'sub-(\d+)|pat(\d+)', the group that took part; text of length 0 tells nobody apart.
    patient = next((group for group in (*match.groups(), match.group(0)) if group), "") if match else ""
    if not patient:
        raise ValueError(
            f"group_pattern {pattern!r} does not match {image.relative!r}; it must match every image's path below the "
            "data set's folder"
        )
    return patient


def _patient_folders(branches: Sequence[tuple[str, ...]]) -> list[str]:
    """The patient of each image by the first folder, from the root, that is numbered as patients are; or ''."""
    siblings: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for branch in branches:
        for depth, folder in enumerate(branch):
            siblings[branch[:depth]].add(folder)
    single = len(set(branches)) == len(branches)  # a folder for every image

    def patient(branch: tuple[str, ...]) -> str:
        for depth, folder in enumerate(branch):
            around = siblings[branch[:depth]]
            last = depth == len(branch) - 1
            if len(around) > 1 and (_is_numbered(folder) or (single and last)):
                return "/".join(branch[: depth + 1])
        return ""

    found = [patient(branch) for branch in branches]
    people = _without_visits_of_folders(set(found) - {""})
    return [people.get(group, "") for group in found]


def _without_visits_of_folders(folders: Set[str]) -> dict[str, str]:
    """The person of each patient's folder, whose name may say a visit as well: ``OAS1_0001_MR2``."""
    ordered = sorted(folders)
    kept = without_visits([VIEW.sub("", TIME_POINT.sub("", folder)) for folder in ordered])
    return {
        folder: person if _is_numbered(person.rpartition("/")[2]) else folder
        for folder, person in zip(ordered, kept, strict=True)
    }


def _is_numbered(folder: str) -> bool:
    said = words(folder)
    return any(c.isdigit() for c in folder) and not (CONTAINERS | GRADES) & {word.rstrip("0123456789") for word in said}


def _counted(folders: Set[str]) -> set[str]:
    """Folders that differ from another one by their number only: people, though their names may say a class as well."""
    same = Counter(letters(folder) for folder in folders)
    return {folder for folder in folders if same[letters(folder)] > 1 and letters(folder) and _is_numbered(folder)}


def _names_class(folder: str) -> bool:
    return is_normal(folder) or is_anomalous(folder)


def _by_name(images: Sequence[Role], case: Callable[[Role], str], branches: Sequence[tuple[str, ...]]) -> Patients:
    names = [case(image) or image.stem for image in images]
    volumes = all(image.volume for image in images)
    fewest = 2 if volumes else FEWEST
    starts = _starts(images, names, volumes)
    said = said_persons(names, fewest)
    starts = [said.get(name, start) for name, start in zip(names, starts, strict=True)]
    doubt = ""
    if len(set(zip(branches, starts, strict=True))) < fewest:
        few = sorted({start for start, name in zip(starts, names, strict=True) if NAMED_SLICE.search(name)})
        if few and len(names) > len(few):
            doubt = _too_few("names", few, "slices of ")
        starts = names
    elif len(set(starts)) == len(starts):
        starts = shared_parts(starts)
        doubt = _repeated(starts) if len(set(starts)) == len(starts) else ""
    often = {name for name, count in Counter(names).items() if count > 1}
    groups = []
    for image, name, start, branch in zip(images, names, starts, branches, strict=True):
        # A name that several folders hold: 001 of two classes is two patients, p001 of two classes is one.
        folders = branch if _is_numbered(start) and not start.isdecimal() and start != name else image.branch
        groups.append("/".join((*folders, start)) if name in often else start)
    if volumes:
        return Patients(groups, "told by the names of volumes", doubt)
    known = starts != names
    return Patients(groups, "told by names less their slice numbers" if known else f"not known, {EACH}", doubt)


def _starts(images: Sequence[Role], names: Sequence[str], volumes: bool) -> list[str]:
    """What of each name is its patient's; the whole name where that would be a class or a counter."""
    plain = [without_augmentation(name) for name in names]
    cut = [patient_of(name, volumes) for name in (plain if len(set(plain)) < len(set(names)) else names)]
    undated = [without_dates(name) for name in cut]
    if len(set(undated)) < len(set(cut)):  # several dates of one patient
        cut = undated
    cut = without_additions([without_ends(name) for name in without_visits(cut)])
    places = [(image.split, image.branch) for image in images]
    size, total = Counter(zip(places, cut, strict=True)), Counter(places)
    classes = _places_of_classes(places, names)
    return [
        name
        if not start or (start != name and _counts(start, size[place, start], total[place], place in classes))
        else start
        for name, start, place in zip(names, cut, places, strict=True)
    ]


def _repeated(names: Sequence[str]) -> str:
    """A note where each name is a patient, though most share their first number with others."""
    shared = shared_start(names)
    if not shared:
        return ""
    return (
        f"each image is taken for a patient of its own, though names share a number (such as {' and '.join(shared)}): "
        "if that is a patient's, splits may cut patients in two; say which part it is with --train_data#group_pattern, "
        "as in '^([^_]+)' for all before the first _"
    )


def _too_few(where: str, few: Sequence[str], what: str = "") -> str:
    return (
        f"the {where} look like {what}{len(few)} patient{'s' * (len(few) > 1)} ({', '.join(few)}), too few to draw "
        "splits from: each image counts as a patient, so that splits and intervals promise too much. Add patients, or "
        "sort them into train, valid and test folders"
    )


def _places_of_classes(places: Sequence[tuple], names: Sequence[str]) -> set[tuple]:
    """The places in which names have classes before their numbers (``Tr-no_1``, ``Tr-gl_1``), and no patients."""
    inside: dict[tuple, list[str]] = defaultdict(list)
    for place, name in zip(places, names, strict=True):
        inside[place].append(name)
    return {place for place, several in inside.items() if classes_in_stems(several)}


def _counts(start: str, size: int, total: int, class_told: bool) -> bool:
    """Whether a name's start before the number is no patient's: a class or a general word, or most of a folder."""
    said = set(words(start))
    return said <= (NORMAL | ANOMALOUS | NO_NAME) - {CHANNEL} or (
        not any(c.isdigit() for c in start) and total > FEWEST and (class_told or 2 * size > total)
    )
