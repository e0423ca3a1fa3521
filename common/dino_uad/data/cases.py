"""From the roles of files to cases: every image gets its mask, class, patient and split, or the user a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dino_uad.data.assign import assign_splits
from dino_uad.data.case import LAYOUTS, SOME_LABELS, WAY_OUT, Case, Options, Understood
from dino_uad.data.classes import Classes
from dino_uad.data.copies import refuse_drawn_on
from dino_uad.data.few_values import tell_by_values
from dino_uad.data.links import keep_one_place, keep_the_place_that_says_most
from dino_uad.data.masks import Labels, labels_of
from dino_uad.data.note_labels import note_labels
from dino_uad.data.pairs import Pairing
from dino_uad.data.patients import find_patients
from dino_uad.data.patterns import NONE, require_used
from dino_uad.data.roles import IMAGE, MASK, PASSED, UNCHOSEN, UNCHOSEN_MASK, Role, tell_roles
from dino_uad.data.unknown import refuse_unknown
from dino_uad.data.verify import has_anomaly
from dino_uad.data.words import BIDS_PART, BIDS_TASK, MODALITIES, words
from dino_uad.transforms import require_one_stack

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
    _require_patterns(roles, options)
    roles = keep_the_place_that_says_most(root, roles, options.normal)
    _refuse_mixed(root, _of(roles, IMAGE))
    roles = tell_by_values(root, roles, strict=True)
    images, masks = _of(roles, IMAGE), _of(roles, MASK)
    pairing = Pairing([*images, *_of(roles, UNCHOSEN)], masks)
    _refuse_duplicates(root, images, pairing)
    labels, notes = labels_of(root, images, masks, pairing, options)
    classes = Classes(images, options.normal)
    images, unannotated = _annotated_splits(images, labels, classes)
    passed = [role for role in roles if role.role in (PASSED, UNCHOSEN)] + unannotated
    folder_classes = classes.normal_folders | classes.anomalous_folders
    patients = find_patients(images, pairing.case_name, folder_classes, options.group_pattern)
    masked = set(labels) if classes.all_normal else set()
    decided = {image.path: None if image.path in masked else classes.anomalous(image) for image in images}
    bare = [image for image in images if image.path not in labels]
    undecided = [image for image in bare if decided[image.path] is None]
    refuse_drawn_on(root, [image for image in bare if not decided[image.path]])
    classes.check_understood(root, bare, set(patients.groups) if options.group_pattern else ())
    chosen = options.anomalous_labels
    cases = [
        Case(
            image,
            own,
            decided[image.path] if decided[image.path] is not None else has_anomaly(own, chosen),
            group,
            image.split,
            chosen,
        )
        for image, group in zip(images, patients.groups, strict=True)
        for own in [labels.get(image.path, ())]
    ]
    notes += note_labels(root, cases, chosen)
    _refuse_missing_masks(root, cases)
    _refuse_marks_on_normal(root, cases)
    refuse_unknown(root, cases, undecided, [role for role in roles if role.unread], pairing)
    notes += _notes(images, masks, labels, undecided, cases)
    notes += _beside_normal(classes.by_place_alone(image for image in bare if decided[image.path]))
    notes += [patients.doubt] if patients.doubt else []
    notes += _in_several_splits(cases) if patients.known else []
    if not splits:
        return Understood(root, cases, passed, patients.patients_from, "none", notes, patients.doubt)
    _refuse_one_folder_of_many(cases)
    cases, splits_from, more = assign_splits(root, cases, options)
    return Understood(root, cases, passed, patients.patients_from, splits_from, notes + more, patients.doubt)


def _notes(
    images: list[Role],
    masks: list[Role],
    labels: Labels,
    undecided: list[Role],
    cases: list[Case],
) -> list[str]:
    """Notes for a person on masks that are missing, not read, or decide which slices the fit takes."""
    notes = []
    if labels and undecided:
        notes.append(
            f"{len(undecided)} of {len(images)} images have no mask and are taken for normal "
            f"(such as {undecided[0].relative})"
        )
    lists = [mask for mask in masks if mask.unread]
    if lists:
        notes.append(f"{len(lists)} files may hold annotations that are not read (such as {lists[0].relative})")
    if cases and not labels and any(case.anomalous for case in cases):
        notes.append("no masks: image-level metrics only")
    if any(case.trainable and case.anomalous for case in cases):
        notes.append("of annotated volumes the fit takes the slices without annotation")
    return notes


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


def _require_patterns(roles: Sequence[Role], options: Options) -> None:
    """Raise ValueError where a pattern of masks or images means no file; for inference it may: masks may be absent."""
    files = [(role.path.name, role.folders) for role in roles if role.role != PASSED or not role.unread]
    masks = [role.relative for role in roles if role.role == MASK or role.reason == UNCHOSEN_MASK]
    shown = f"By their names these are masks: {', '.join(masks[:4])}" if masks else "No name says mask"
    mask_patterns = [] if options.ignores_masks else options.mask_patterns
    require_used("mask_pattern", mask_patterns, files, f"{shown}; {NONE} ignores all masks.")
    image_patterns = [] if options.image_pattern is None else [options.image_pattern]
    examples = ", ".join(role.relative for role in roles[:4])
    require_used(
        "image_pattern", image_patterns, files, f"Found {examples}; leave the option out if all are understood."
    )


def _refuse_mixed(root: Path, images: Sequence[Role]) -> None:
    volumes, pictures = [i for i in images if i.volume], [i for i in images if not i.volume]
    if volumes and pictures:
        raise ValueError(
            f"{root}: found {len(pictures)} pictures (such as {pictures[0].path.name}) mixed with {len(volumes)} "
            f"volumes (such as {volumes[0].path.name}); expected one kind. "
            "Choose with kind='2d' or kind='3d', or with pattern."
        )


def _refuse_one_folder_of_many(cases: Sequence[Case]) -> None:
    """A DICOM folder alone to learn from is one scan, too few; several stacks in it, as exported flat, are listed."""
    trained = [case for case in cases if case.trainable and case.split is None]
    if len({case.group for case in trained}) == 1 and trained[0].image.path.is_dir():
        require_one_stack(trained[0].image.path)


def _refuse_duplicates(root: Path, images: Sequence[Role], pairing: Pairing) -> None:
    """Raise ValueError where one case has two images: sequences, also in folders of their own (``anat``, ``dwi``)."""
    first: dict[tuple, tuple[Role, str]] = {}
    for image in images:
        # Pictures called t1.png, t2.png, ... are numbered; volumes of those names are sequences of one case.
        name = pairing.case_name(image)
        key = name if image.volume else name or image.stem
        branch = tuple(folder for folder in image.branch if not (image.volume and set(words(folder)) <= MODALITIES))
        key = BIDS_PART.sub("", key).casefold()
        other, same = first.setdefault((image.split, branch, BIDS_TASK.sub("", key)), (image, key))
        # Two tasks of one sequence are two images; a task and an anatomy are two sequences of a case.
        if other is not image and (key == same or words(image.stem)[-1:] != words(other.stem)[-1:]):
            raise ValueError(
                f"{root}: two images of one name: {other.relative} and {image.relative}; expected one image a case. "
                "Remove one, or choose with pattern, as in --train_data#pattern '*flair*' (or '*_0000*', 'folder/*')."
            )


def _annotated_splits(images: list[Role], labels: Labels, classes: Classes) -> tuple[list[Role], list[Role]]:
    """Leave out a test or validation split whose images nobody annotated: what is in them is not known.

    Where that leaves ``train`` alone, as in nnU-Net's ``imagesTr`` and ``imagesTs``, it is the whole data set.
    """
    known = {image.split for image in images if image.path in labels or classes.anomalous(image) is not None}
    unknown = {image.split for image in images} - known - {"train", None} if "train" in known and labels else set()
    kept = [image for image in images if image.split not in unknown]
    reason = "images of a split without any annotation"
    return kept, [replace(image, role=PASSED, reason=reason) for image in images if image.split in unknown]


def _refuse_marks_on_normal(root: Path, cases: Sequence[Case]) -> None:
    labelled = [case for case in cases if case.labels and not case.anomalous]
    marked = [case for case in labelled if has_anomaly(case.labels, case.anomalous_labels)]
    if marked:
        one = marked[0]
        raise ValueError(
            f"{root}: {len(marked)} images are normal by their folders or names, but their masks mark something (such "
            f"as {one.image.relative}: {one.labels[0].relative_to(root)}); expected blank masks, or none. Move "
            f"anomalous images away; {SOME_LABELS}; {WAY_OUT}"
        )


def _refuse_missing_masks(root: Path, cases: Sequence[Case]) -> None:
    anomalous = [case for case in cases if case.anomalous]
    missing = [case for case in anomalous if not case.labels]
    if missing and len(anomalous) > len(missing):
        raise ValueError(
            f"{root}: {len(missing)} of {len(anomalous)} anomalous images have no mask (such as "
            f"{missing[0].image.relative}); expected a mask for each, or for none. "
            "Add the masks or move the images away."
        )


def _beside_normal(folders: Counter[str]) -> list[str]:
    """A note on folders whose names say no class: ``unlabeled`` beside ``normal`` would be measured as ill."""
    if not folders:
        return []
    listed = ", ".join(f"{name} ({count})" for name, count in folders.most_common(8))
    return [
        f"taken for anomalous only because a normal folder lies beside them: {listed}; move away what is not known, "
        "and if one is normal, name all normal folders with --train_data#normal"
    ]


def _in_several_splits(cases: Sequence[Case]) -> list[str]:
    """A note on patients whom the folders put into several splits; volumes that are counted name nobody."""
    first: dict[str, Case] = {}
    people = [case for case in cases if case.split and not (case.image.volume and case.image.stem.isdecimal())]
    shared = {
        case.group: (first[case.group], case)
        for case in people
        if first.setdefault(case.group, case).split != case.split
    }
    if not shared:
        return []
    one, other = next(iter(shared.values()))
    return [
        f"{len(shared)} patients are in several splits by their folders (such as {one.image.relative} and "
        f"{other.image.relative}): an evaluation on them promises too much. If these are other people of one name, "
        "tell them apart with --train_data#group_pattern '(.*)'"
    ]
