"""What is refused in a folder because it contradicts itself, or would be a guess: each message says what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dino_uad.data.case import SOME_LABELS, WAY_OUT, Case, Options
from dino_uad.data.marks import has_anomaly
from dino_uad.data.pairs import Pairing
from dino_uad.data.patterns import NONE, require_used
from dino_uad.data.roles import MASK, PASSED, UNCHOSEN_MASK, Role
from dino_uad.data.words import BIDS_PART, BIDS_TASK, MODALITIES, words
from dino_uad.transforms import require_one_stack


def require_patterns(roles: Sequence[Role], options: Options) -> None:
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


def refuse_mixed(root: Path, images: Sequence[Role]) -> None:
    """Raise ValueError where pictures and volumes lie together."""
    volumes, pictures = [i for i in images if i.volume], [i for i in images if not i.volume]
    if volumes and pictures:
        raise ValueError(
            f"{root}: found {len(pictures)} pictures (such as {pictures[0].path.name}) mixed with {len(volumes)} "
            f"volumes (such as {volumes[0].path.name}); expected one kind. "
            "Choose with kind='2d' or kind='3d', or with pattern."
        )


def refuse_duplicates(root: Path, images: Sequence[Role], pairing: Pairing) -> None:
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


def refuse_missing_masks(root: Path, cases: Sequence[Case]) -> None:
    """Raise ValueError where some anomalous images have masks and others have none."""
    anomalous = [case for case in cases if case.anomalous]
    missing = [case for case in anomalous if not case.labels]
    if missing and len(anomalous) > len(missing):
        raise ValueError(
            f"{root}: {len(missing)} of {len(anomalous)} anomalous images have no mask (such as "
            f"{missing[0].image.relative}); expected a mask for each, or for none. "
            "Add the masks or move the images away."
        )


def refuse_marks_on_normal(root: Path, cases: Sequence[Case]) -> None:
    """Raise ValueError where an image is normal by its place, and its mask marks something."""
    labelled = [case for case in cases if case.labels and not case.anomalous]
    marked = [case for case in labelled if has_anomaly(case.labels, case.anomalous_labels)]
    if marked:
        one = marked[0]
        raise ValueError(
            f"{root}: {len(marked)} images are normal by their folders or names, but their masks mark something (such "
            f"as {one.image.relative}: {one.labels[0].relative_to(root)}); expected blank masks, or none. Move "
            f"anomalous images away; {SOME_LABELS}; {WAY_OUT}"
        )


def refuse_one_folder_of_many(cases: Sequence[Case]) -> None:
    """A DICOM folder alone to learn from is one scan, too few; several stacks in it, as exported flat, are listed."""
    trained = [case for case in cases if case.trainable and case.split is None]
    if len({case.group for case in trained}) == 1 and trained[0].image.path.is_dir():
        require_one_stack(trained[0].image.path)
