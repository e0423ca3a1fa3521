"""The data list of an inference run: what is to be scored, and what is not although it may be a scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dino_uad.data.pairs import before_sequence, called_after
from dino_uad.data.roles import MASK, RESULTS, UNCHOSEN, Role
from dino_uad.data.words import words

IF_IMAGE = "if it is an image, say so with --infer_data#image_pattern, a shell pattern for its name"


class ScanList(list[dict]):
    """Entries of a data list, which a list of MONAI's may be.

    Args:
        items: the entries.
        passed: files that were passed over.
        images: those that were not.

    Attributes:
        passed: path and reason of those that are in a format of images, that this package did not write, that the user
            did not ask to be left out, and that are no masks of an image beside them.
    """

    def __init__(self, items: Iterable[dict], passed: Sequence[Role] = (), images: Sequence[Role] = ()) -> None:
        super().__init__(items)
        full = {words(image.stem) for image in images}
        names = full | {before_sequence(name) for name in full}
        scans = (role for role in passed if _may_be_a_scan(role))
        others = (role for role in scans if role.role != MASK or not called_after(role, names))
        self.passed = [(str(role.path), _reason(role)) for role in others]


def _may_be_a_scan(role: Role) -> bool:
    return not role.unread and role.role != UNCHOSEN and role.reason != RESULTS


def _reason(role: Role) -> str:
    said = "it is called, or looks, as annotations do" if role.role == MASK else role.reason
    return f"passed over: {said}; {IF_IMAGE}"
