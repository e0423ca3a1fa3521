"""Masks that no name calls so: images of a few values beside others of their size, and the blank ones among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dino_uad.data.content import count_values
from dino_uad.data.image_size import size_or_none
from dino_uad.data.pairs import Pairing
from dino_uad.data.patterns import pattern_of
from dino_uad.data.roles import DECLARED, IMAGE, MASK, Role
from dino_uad.data.words import is_normal, words


def tell_by_values(root: Path, roles: list[Role], strict: bool) -> list[Role]:
    """Take images of a few values beside others of their size for the masks that they are, or ask.

    Blank images are masks where their names differ from an image's as those of such masks do: ``p1_target`` has a mark,
    ``p2_target`` has none.

    Args:
        root: the data set's folder, for the message.
        roles: of all files.
        strict: whether to ask; inference does not.

    Raises:
        ValueError: images of a few values fit no image by name and size.
    """
    images = [role for role in roles if role.role == IMAGE]
    counts = {image: count_values(image.path) for image in images if image.reason != DECLARED}
    few = {image: count for image, count in counts.items() if count is not None and count > 1}
    others = [image for image in images if image not in few]
    if not few or (not others and not strict):
        return roles
    told = _fitting(few, others)
    unknown = [image for image in few if image not in told and not any(map(is_normal, image.branch))]
    if unknown and strict:
        one = unknown[0]
        raise ValueError(
            f"{root}: {len(unknown)} images have as few values as a mask (such as {one.relative}: {few[one]} values), "
            "and fit no image by name and size. If they are masks, name them after their images (x.png, x_mask.png) or "
            f"put them into a folder called masks; if they are images, say so with --train_data#image_pattern "
            f"'{pattern_of(one.path.name)}' (a shell pattern; '*' for all; from Python image_pattern=...)."
        )
    kinds = {_beyond(image, owner) for image, owner in told.items()}
    blank = [image for image in others if counts.get(image) == 1]
    fitting = _fitting(blank, [image for image in others if image not in set(blank)]) if kinds else {}
    told |= {image: owner for image, owner in fitting.items() if _beyond(image, owner) in kinds}
    return [_as_mask(role, counts[role]) if role in told else role for role in roles]


def _fitting(candidates: Sequence[Role] | dict[Role, int], images: Sequence[Role]) -> dict[Role, Role]:
    """The candidates that have the name of an image in theirs and its size, with that image."""
    masks = {one: _as_mask(one) for one in candidates}
    pairing = Pairing(images, list(masks.values()))
    found = {}
    for one, mask in masks.items():
        owners = pairing.images_of(mask)
        owner = next((image for image in owners if size_or_none(image.path) == size_or_none(one.path)), None)
        if owner is not None:
            found[one] = owner
    return found


def _as_mask(image: Role, count: int | None = None) -> Role:
    values = f"{count} values" if count != 1 else "one value"
    return replace(image, role=MASK, reason=f"it has {values}, and the name of an image in it", unnamed=True)


def _beyond(mask: Role, image: Role) -> tuple[frozenset[str], tuple[str, ...]]:
    """Folders, and words of the name (no numbers), that a mask has and its image has not."""
    known = set(words(image.stem))
    rest = (word for word in words(mask.stem) if word not in known and not word.isdecimal())
    folders = {folder for folder in mask.folders if words(folder) != words(image.stem)}
    return frozenset(folders) - set(image.folders), tuple(rest)
