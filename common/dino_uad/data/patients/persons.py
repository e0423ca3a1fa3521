"""Patients whom names say by a word or a known identifier, anywhere: ``sub-01``, ``010_patient3``, ``p01a``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dino_uad.data.patients.name_ends import COUNTED
from dino_uad.data.words import ANOMALOUS, NORMAL, PART, words

IDENTIFIERS = (
    re.compile(r"(?:^|[ _.\-])(sub-[a-z0-9]+)(?![a-z0-9])", re.IGNORECASE),  # BIDS
    re.compile(r"(?<!\d)(\d{3}_S_\d{4,5})(?!\d)"),  # ADNI: the site's number and the person's
    re.compile(r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(?![A-Z0-9])"),
)
NUMBER = r"[ _.#\-]?(?!(?:19|20)\d\d(?!\d))\d+"
"""A number that follows a word, and is no year."""
PERSONS = tuple(
    re.compile(rf"(?<![a-z])((?:{said}){NUMBER})", re.IGNORECASE)
    for said in ("patient|pat|paciente|pt|subject|subj|sub|participant|volunteer|person", "case", "video|vid|clip")
)
SHORT = re.compile(rf"^(?:[a-z]+[ _.\-]+|(?:{COUNTED}[ _\-]?)?\d+[ _.\-]+)?(p{NUMBER})", re.IGNORECASE)
"""``P01``, at the start or behind one word or number: elsewhere it may be a page, a part or a plane."""
SITES = {"site", "center", "centre", "hospital", "clinic", "cohort", "dataset", "institution"}


def said_persons(names: Sequence[str], fewest: int) -> dict[str, str]:
    """The patients of those names that say theirs, if they are ``fewest`` or more and one has several images.

    What precedes a patient's word is a slice, a date or a visit, unless it says a site or a class.
    """
    said = {name: person for name in names if (person := _person(name))}
    several = len(set(said.values()))
    return said if fewest <= several < len(said) else {}


def _person(name: str) -> str:
    for identifier in IDENTIFIERS:
        if found := identifier.search(name):
            return found[1]
    found = next((match for word in PERSONS if (match := word.search(name))), None) or SHORT.match(name)
    if found is None:
        return ""
    kept = [part for part in PART.split(name[: found.start(1)]) if _tells_people_apart(part)]
    return "_".join((*kept, found[1]))


def _tells_people_apart(part: str) -> bool:
    said = set(words(part))
    return bool(said & (NORMAL | ANOMALOUS)) or any(part.lower().startswith(site) for site in SITES)
