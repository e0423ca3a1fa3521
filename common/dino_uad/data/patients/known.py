"""The patients of a data set's images, how they are known, and what to say where they look like too few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FEWEST = 3
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


def too_few(where: str, few: Sequence[str], what: str = "") -> str:
    """A note on ``few`` patients that folders or names seem to tell; ``what`` there is of them."""
    return (
        f"the {where} look like {what}{len(few)} patient{'s' * (len(few) > 1)} ({', '.join(few)}), too few to draw "
        "splits from: each image counts as a patient, so that splits and intervals promise too much. Add patients, or "
        "sort them into train, valid and test folders"
    )
