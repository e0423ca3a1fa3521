"""What stands around a patient in an image's name: slice numbers, sides, visits, tiles, and what was made of it."""

from __future__ import annotations

import re

from dino_uad.data.words import SEQUENCE_END

COUNTED = r"(?:slice|slc|sl|s|z|img|image|im|frame|f|layer)"
SLICE_NUMBER = re.compile(
    rf"^(?:copy of|kopie von) |^(?:slice|slc|frame)[ _-]?\d+[ _.-]+(?=.)|[ _.-]+{COUNTED}\d+$|"
    r"[ _.-]+(?:slice|slc|frame|image|img|im|layer)[ _.-]?\d+$|"
    r"[ _.-]*\(?(?<=[ _.(-])\d{1,4}\)?$",
    re.IGNORECASE,
)
NAMED_SLICE = re.compile(r"(?:^|[ _.-])(?:slice|slc|sl|frame)[ _-]?\d+(?=$|[ _.-])", re.IGNORECASE)
"""A number that a word calls a slice's."""
AUGMENTED = (
    r"(?:aug|augmented|augmentation|[hv]?flip(?:ped)?(?:lr|ud|h|v)?|mirror(?:ed)?|rot(?:ated?|ation)?|noisy?|"
    r"blur(?:red|ry)?|bright(?:ness|er)?|dark(?:er)?|contrast|gamma|zoom(?:ed)?|crop(?:ped)?|shift(?:ed)?|"
    r"shear(?:ed)?|scaled?|translated?|elastic|jitter|clahe)"
)
MADE = re.compile(  # what processing and augmentation make of an image, planes, and where in a slide a tile lies
    r"(?:[ _.-]+\(?(?:axial|coronal|sagittal|slice|frame|orig|original|"
    r"copy|copie|kopie|brain|bet|stripped|n|bfc|reg|registered|norm|preproc|preprocessed|resampled|rf[.][0-9a-f]+|"
    rf"{AUGMENTED})\d{{0,3}}\)?|[ _.-]+(?:x|y|row|col|class|tile|patch)[ _-]?\d+)+$",
    re.IGNORECASE,
)
MADE_FIRST = re.compile(rf"^(?:{AUGMENTED}(?:[ _.-]?\d{{1,3}}(?=[ _.-]))?[ _.-]+)+(?=.*\d)", re.IGNORECASE)
VIEW = re.compile(  # sides, projections and visits of one patient
    r"(?:[ _.-]+(?:(?:left|right|l|r)\d?|od|os|[lr]?(?:cc|mlo|ml|lm)|xccl|pa|ap|lat|lateral|frontal|baseline|"
    r"follow-?up|mr\d|(?:mr[_-])?d\d{4}|v\d\d|fu[_-]?\d*[dmwy]?|"
    r"(?:ses|session|visit|tp|time ?point|scan|week|month|year)[ _-]?\d+))+$",
    re.IGNORECASE,
)
DATE = re.compile(r"[ _.-]+(?:19|20)\d\d([ _.-]?)\d\d\1\d\d(?!\d).*$")
TIME_POINT = re.compile(r"(?<=\d{5})-\d{3}$")  # BraTS: BraTS-GLI-00001-000 is patient 00001's first scan


def patient_of(name: str, volume: bool) -> str:
    """A name without its slice's number (or the scan's), and without what else may differ between one patient's."""
    number = TIME_POINT if volume else SLICE_NUMBER
    rest = without_ends(number.sub("", MADE.sub("", name)))
    return rest if rest == name else SEQUENCE_END[volume].sub("", rest) or rest


def without_ends(name: str) -> str:
    """A name without the views and what was made of an image at its end, in any order."""
    rest = VIEW.sub("", MADE.sub("", name))
    return rest if rest == name else without_ends(rest)


def without_dates(name: str) -> str:
    """A name without a date and what follows it."""
    return DATE.sub("", name)


def without_augmentation(name: str) -> str:
    """A name without what was made of its image at the start: ``img1`` of ``aug_2_img1``."""
    return MADE_FIRST.sub("", name)
