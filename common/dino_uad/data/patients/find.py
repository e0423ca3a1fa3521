"""The patient of every image, by the first that tells: the user, DICOM, folders, names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from dino_uad.data.patients.folders import patient_folders, without_classes
from dino_uad.data.patients.known import FEWEST, Patients, too_few
from dino_uad.data.patients.names import by_names
from dino_uad.data.roles import Role
from dino_uad.data.stems import letters
from dino_uad.transforms import dicom_patients

PERSONS = {"patient", "pat", "subject", "sub", "case", "p", "id"}


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
    branches = without_classes([image.branch for image in images], classes)
    folders = patient_folders(branches)
    few = sorted(set(folders) - {""})
    if len(few) < FEWEST:
        folders = [""] * len(images)
    by_name = by_names(images, case, branches)
    if all(folders):
        return Patients(folders, "told by folders")
    groups = [folder or name for folder, name in zip(folders, by_name.groups, strict=True)]
    told = f"told by folders; elsewhere {by_name.patients_from}" if any(folders) else by_name.patients_from
    doubt = by_name.doubt
    if few and not any(folders) and not by_name.known and all(set(letters(name)) & PERSONS for name in few):
        doubt = too_few("folders", few)
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
