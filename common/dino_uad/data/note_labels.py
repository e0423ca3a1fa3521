"""``anomalous_labels`` held against the masks of a data set: values that none of them has are a slip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dino_uad.data.case import Case
from dino_uad.data.verify import labels_in


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
