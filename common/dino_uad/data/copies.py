"""Copies: pictures that are another one with something drawn on it, as readers' contours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from dino_uad.data.marks import Identity, identity
from dino_uad.data.patterns import pattern_of
from dino_uad.data.roles import DECLARED, Role
from dino_uad.data.words import words

SAMPLE = 24  # pairs that are looked at
MOST = 0.5  # of the pixels that are not background; neighbouring slices share none but by chance


def refuse_drawn_on(root: Path, images: Sequence[Role]) -> None:
    """Raise ValueError where a picture is another one's copy but for a part of its pixels.

    Looked at are pairs of which one name is in the other (``image1`` and ``image1-2``), or equal in two folders. Copies
    that were compressed again (JPEG) are not known for such.
    """
    pairs = list(_pairs([image for image in images if not image.volume and image.reason != DECLARED]))
    for one, other in pairs[:: max(1, len(pairs) // SAMPLE)]:
        share = _equal(identity(one.path), identity(other.path))
        if MOST < share < 1:
            raise ValueError(
                f"{root}: {other.relative} looks like {one.relative} with something drawn on it ({100 * share:.0f} % "
                "of the pixels are equal), as readers mark findings; expected images as they were taken. Leave such "
                f"copies out with --train_data#pattern, or say that they are images with --train_data#image_pattern "
                f"'{pattern_of(other.path.name)}' (a shell pattern; '*' for all; from Python image_pattern=...)."
            )


def _pairs(images: Sequence[Role]) -> Iterator[tuple[Role, Role]]:
    named = {(image.folders, words(image.stem)): image for image in images}
    by_name: dict[str, list[Role]] = defaultdict(list)
    for image in images:
        name = words(image.stem)
        yield from (
            (named[image.folders, name[:end]], image)
            for end in range(1, len(name))
            if (image.folders, name[:end]) in named
        )
        by_name[image.stem].append(image)
    yield from ((same[0], other) for same in by_name.values() for other in same[1:2])


@cache
def _equal(one: Identity, other: Identity) -> float:
    """The share of pixels that are equal, of those that are not the most frequent colour; 0 for other sizes."""
    try:
        first, second = (
            np.asarray(Image.open(path).convert("RGB"), np.int32) @ (1 << 16, 1 << 8, 1) for path, *_ in (one, other)
        )
    except Exception:  # decoders raise what they like; loading it says what is wrong
        return 0.0
    if first.shape != second.shape:
        return 0.0
    colours, counts = np.unique(first, return_counts=True)
    inside = first != colours[counts.argmax()]
    return float((first == second)[inside].mean()) if inside.any() else 0.0
