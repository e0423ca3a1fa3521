"""Names that tell patients: what of each is the person's, and whether that can be believed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from dino_uad.data.patients.folders import Branch, is_numbered
from dino_uad.data.patients.known import EACH, FEWEST, Patients, too_few
from dino_uad.data.patients.name_ends import NAMED_SLICE, patient_of, without_augmentation, without_dates, without_ends
from dino_uad.data.patients.persons import said_persons
from dino_uad.data.patients.shared_parts import shared_parts, shared_start, without_additions
from dino_uad.data.patients.visits import without_visits
from dino_uad.data.roles import Role
from dino_uad.data.stems import classes_in_stems
from dino_uad.data.words import ANOMALOUS, CHANNEL, NO_NAME, NORMAL, words


def by_names(images: Sequence[Role], case: Callable[[Role], str], branches: Sequence[Branch]) -> Patients:
    """The patients that the images' names tell; ``branches`` are their folders that are no classes."""
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
            doubt = too_few("names", few, "slices of ")
        starts = names
    elif len(set(starts)) == len(starts):
        starts = shared_parts(starts)
        doubt = _repeated(starts) if len(set(starts)) == len(starts) else ""
    often = {name for name, count in Counter(names).items() if count > 1}
    groups = []
    for image, name, start, branch in zip(images, names, starts, branches, strict=True):
        # A name that several folders hold: 001 of two classes is two patients, p001 of two classes is one.
        folders = branch if is_numbered(start) and not start.isdecimal() and start != name else image.branch
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
