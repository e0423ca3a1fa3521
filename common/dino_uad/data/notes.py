"""Notes for a person on what was made of a folder: what a fit does with it that may not be meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dino_uad.data.case import Case
from dino_uad.data.marks import labels_in
from dino_uad.data.masks import Labels
from dino_uad.data.roles import Role


def note_masks(
    images: Sequence[Role], masks: Sequence[Role], labels: Labels, undecided: Sequence[Role], cases: Sequence[Case]
) -> list[str]:
    """Notes on masks that are missing, not read, or decide which slices the fit takes."""
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


def note_beside_normal(folders: Counter[str]) -> list[str]:
    """A note on folders whose names say no class: ``unlabeled`` beside ``normal`` would be measured as ill."""
    if not folders:
        return []
    listed = ", ".join(f"{name} ({count})" for name, count in folders.most_common(8))
    return [
        f"taken for anomalous only because a normal folder lies beside them: {listed}; move away what is not known, "
        "and if one is normal, name all normal folders with --train_data#normal"
    ]


def note_several_splits(cases: Sequence[Case]) -> list[str]:
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


def note_labels(root: Path, cases: Sequence[Case], chosen: Sequence[int] | None) -> list[str]:
    """A note on the values that masks have: which mark anomalies and which do not.

    Args:
        root: the data set's folder, for the message.
        cases: all cases.
        chosen: values that mark anomalies; None for all.

    Raises:
        ValueError: no mask has any of them, so that whatever is marked would be learnt as normal.
    """
    masks = [mask for case in cases for mask in case.labels]
    if chosen is None or not masks:
        return []
    found: set[int] = set()
    unread: list[Exception] = []
    for mask in masks:
        try:
            found |= set(labels_in(mask))
        except (ValueError, OSError) as error:  # whoever loads it says why, unless nothing else can be said
            unread.append(error)
    known, others, missing = found & set(chosen), found - {0, *chosen}, set(chosen) - found
    if not known and unread:
        raise unread[0]
    if not known:
        raise ValueError(
            f"{root}: anomalous_labels is {list(chosen)}, but none of the {len(masks)} masks (such as "
            f"{masks[0].relative_to(root)}) has such a value; found {_listed(found)}. Name the values "
            "that mark anomalies; if all images are normal, --train_data#mask_pattern none"
        )
    said = f"anomalous_labels: values of masks that mark anomalies: {_listed(known)}; others: {_listed(others)}"
    return [said + (f"; no mask has {_listed(missing)}" if missing else "")]


def _listed(values: set[int]) -> str:
    return ", ".join(map(str, sorted(values))) or "none"
