"""Folders that are patients: numbered, beside others that are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence, Set

from dino_uad.data.patients.name_ends import TIME_POINT, VIEW
from dino_uad.data.patients.visits import without_visits
from dino_uad.data.stems import letters
from dino_uad.data.words import CONTAINERS, GRADES, is_anomalous, is_normal, words

Branch = tuple[str, ...]


def without_classes(branches: Sequence[Branch], classes: Set[str]) -> list[Branch]:
    """The folders of each image that are no classes; ``classes`` are known, others are by their names.

    A folder that differs from another one by its number only is somebody's, though its name may say a class as well.
    """
    folders = {folder for branch in branches for folder in branch}
    same = Counter(letters(folder) for folder in folders)
    people = {one for one in folders if same[letters(one)] > 1 and letters(one) and is_numbered(one)}
    gone = {one for one in folders - people if one in classes or is_normal(one) or is_anomalous(one)}
    return [tuple(folder for folder in branch if folder not in gone) for branch in branches]


def patient_folders(branches: Sequence[Branch]) -> list[str]:
    """The patient of each image by the first folder, from the root, that is numbered as patients are; or ''."""
    siblings: dict[Branch, set[str]] = defaultdict(set)
    for branch in branches:
        for depth, folder in enumerate(branch):
            siblings[branch[:depth]].add(folder)
    single = len(set(branches)) == len(branches)  # a folder for every image

    def patient(branch: Branch) -> str:
        for depth, folder in enumerate(branch):
            around = siblings[branch[:depth]]
            last = depth == len(branch) - 1
            if len(around) > 1 and (is_numbered(folder) or (single and last)):
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
        folder: person if is_numbered(person.rpartition("/")[2]) else folder
        for folder, person in zip(ordered, kept, strict=True)
    }


def is_numbered(folder: str) -> bool:
    """Whether a name has a number that counts neither containers, such as sites and years, nor grades."""
    said = words(folder)
    return any(c.isdigit() for c in folder) and not (CONTAINERS | GRADES) & {word.rstrip("0123456789") for word in said}
