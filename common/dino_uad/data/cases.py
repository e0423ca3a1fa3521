"""From the roles of files to cases: every image gets its mask, class, patient and split, or the user a question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dino_uad.data.assign import assign_splits
from dino_uad.data.case import LAYOUTS, Case, Options, Understood
from dino_uad.data.classes import Classes
from dino_uad.data.copies import refuse_drawn_on
from dino_uad.data.few_values import tell_by_values
from dino_uad.data.links import keep_one_place, keep_the_place_that_says_most
from dino_uad.data.marks import has_anomaly
from dino_uad.data.masks import Labels, labels_of
from dino_uad.data.notes import note_beside_normal, note_labels, note_masks, note_several_splits
from dino_uad.data.pairs import Pairing
from dino_uad.data.patients import find_patients
from dino_uad.data.refusals import (
    refuse_duplicates,
    refuse_marks_on_normal,
    refuse_missing_masks,
    refuse_mixed,
    refuse_one_folder_of_many,
    require_patterns,
)
from dino_uad.data.roles import IMAGE, MASK, PASSED, UNCHOSEN, Role, tell_roles
from dino_uad.data.unknown import refuse_unknown

CALLED_MASKS = "are called as masks are (if they are images: --train_data#image_pattern '*')"


def list_images(root: Path, options: Options) -> Understood:
    """Every image, for inference: annotations and this package's results are passed over, classes are not asked for."""
    roles = keep_one_place(_roles(root, options))
    roles = tell_by_values(root, roles, strict=False)
    images = _of(roles, IMAGE)
    pairing = Pairing(images)
    patients = find_patients(images, pairing.case_name, set(), options.group_pattern)
    cases = [Case(image, (), False, group, None) for image, group in zip(images, patients.groups, strict=True)]
    passed = [
        role if role.role != MASK else replace(role, reason="annotations") for role in roles if role.role != IMAGE
    ]
    return Understood(root, cases, passed, patients.patients_from, "none", [])


def understand(root: Path, options: Options, splits: bool = True) -> Understood:
    """Give every image its mask, class, patient and split.

    Args:
        root: folder of the data set.
        options: how to read it.
        splits: False gives no split, and needs no second patient.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: something is not understood, or contradicts itself; the message says what and what to do.
    """
    roles = _roles(root, options)
    require_patterns(roles, options)
    roles = keep_the_place_that_says_most(root, roles, options.normal)
    refuse_mixed(root, _of(roles, IMAGE))
    roles = tell_by_values(root, roles, strict=True)
    images, masks = _of(roles, IMAGE), _of(roles, MASK)
    pairing = Pairing([*images, *_of(roles, UNCHOSEN)], masks)
    refuse_duplicates(root, images, pairing)
    labels, notes = labels_of(root, images, masks, pairing, options)
    classes = Classes(images, options.normal)
    images, unannotated = _annotated_splits(images, labels, classes)
    passed = [role for role in roles if role.role in (PASSED, UNCHOSEN)] + unannotated
    folder_classes = classes.normal_folders | classes.anomalous_folders
    patients = find_patients(images, pairing.case_name, folder_classes, options.group_pattern)
    decided = {image.path: _decided(image, labels, classes) for image in images}
    bare = [image for image in images if image.path not in labels]
    undecided = [image for image in bare if decided[image.path] is None]
    refuse_drawn_on(root, [image for image in bare if not decided[image.path]])
    classes.check_understood(root, bare, set(patients.groups) if options.group_pattern else ())
    cases = [
        _case(image, labels.get(image.path, ()), decided[image.path], group, options.anomalous_labels)
        for image, group in zip(images, patients.groups, strict=True)
    ]
    notes += note_labels(root, cases, options.anomalous_labels)
    refuse_missing_masks(root, cases)
    refuse_marks_on_normal(root, cases)
    refuse_unknown(root, cases, undecided, [role for role in roles if role.unread], pairing)
    notes += note_masks(images, masks, labels, undecided, cases)
    notes += note_beside_normal(classes.by_place_alone(image for image in bare if decided[image.path]))
    notes += [patients.doubt] if patients.doubt else []
    notes += note_several_splits(cases) if patients.known else []
    if not splits:
        return Understood(root, cases, passed, patients.patients_from, "none", notes, patients.doubt)
    refuse_one_folder_of_many(cases)
    cases, splits_from, more = assign_splits(root, cases, options)
    return Understood(root, cases, passed, patients.patients_from, splits_from, notes + more, patients.doubt)


def _decided(image: Role, labels: Labels, classes: Classes) -> bool | None:
    """The class that folders or names give an image; None where its mask tells, or nothing does."""
    return None if classes.all_normal and image.path in labels else classes.anomalous(image)


def _case(
    image: Role, labels: tuple[Path, ...], decided: bool | None, group: str, chosen: Sequence[int] | None
) -> Case:
    anomalous = has_anomaly(labels, chosen) if decided is None else decided
    return Case(image, labels, anomalous, group, image.split, chosen)


def _of(roles: Iterable[Role], kind: str) -> list[Role]:
    return [role for role in roles if role.role == kind]


def _roles(root: Path, options: Options) -> list[Role]:
    if not root.is_dir():
        found = "it is a file, not a folder" if root.exists() else "no such folder"
        raise FileNotFoundError(f"{root}: {found}. Give the data set's folder as dataset_dir; {LAYOUTS}")
    roles = tell_roles(root, options.pattern, options.kind, options.mask_patterns, options.image_pattern)
    if not _of(roles, IMAGE):
        found = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "an empty folder"
        masks = len(_of(roles, MASK))
        raise ValueError(
            f"{root}: no images (pattern {options.pattern!r}, kind {options.kind}). Found {found}"
            f"{f'; {masks} files {CALLED_MASKS}' if masks else ''}; {LAYOUTS}"
        )
    return roles


def _annotated_splits(images: list[Role], labels: Labels, classes: Classes) -> tuple[list[Role], list[Role]]:
    """Leave out a test or validation split whose images nobody annotated: what is in them is not known.

    Where that leaves ``train`` alone, as in nnU-Net's ``imagesTr`` and ``imagesTs``, it is the whole data set.
    """
    known = {image.split for image in images if image.path in labels or classes.anomalous(image) is not None}
    unknown = {image.split for image in images} - known - {"train", None} if "train" in known and labels else set()
    kept = [image for image in images if image.split not in unknown]
    reason = "images of a split without any annotation"
    return kept, [replace(image, role=PASSED, reason=reason) for image in images if image.split in unknown]
