"""Which masks go with each image: one, the parts of one, or several that the user must choose among."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from string import ascii_letters

from dino_uad.data.case import SOME_LABELS, WAY_OUT, Options
from dino_uad.data.label_names import refuse_organs
from dino_uad.data.marks import overlap
from dino_uad.data.pairs import Pairing
from dino_uad.data.patterns import fits, pattern_of
from dino_uad.data.roles import Role
from dino_uad.data.suffixes import BOXES
from dino_uad.data.words import DERIVED, FINDINGS, MASKS, ORGANS, QUALIFIERS, READERS, SIDES, SOLITARY, words

Labels = dict[Path, tuple[Path, ...]]

SAME_PLACE = 0.5  # of the smaller of two masks; parts of one annotation share less


def labels_of(
    root: Path, images: Sequence[Role], masks: Sequence[Role], pairing: Pairing, options: Options
) -> tuple[Labels, list[str]]:
    """The masks of each image that has any, and notes for a person; every mask must go with an image.

    Several masks of one image are joined where they are parts of one annotation (``x_mask``, ``x_mask_1``; left and
    right), or where ``mask_pattern`` has several patterns, by which the user chose them all.

    Raises:
        ValueError: masks and their folders are called after images; a mask that goes with no image, cannot be read or
            lies on a picture instead of a volume; or several for one image that say different things.
    """
    pairing.mask_folders.refuse_ambiguous()
    found: dict[Path, list[Role]] = defaultdict(list)
    chosen = {image.path: image for image in images}
    orphans = []
    read = {(mask.path.parent, mask.stem) for mask in masks if not mask.unread}
    for mask in masks:
        if mask.doubtful and (mask.path.parent, mask.stem) in read:  # what a mask's own side file says
            continue
        owners = pairing.images_of(mask)
        if mask.unread and (not mask.doubtful or _is_named(mask, owners, pairing)):
            raise ValueError(
                f"{mask.path}: {mask.reason}, so it is an annotation, but this format is not read; expected masks as "
                f"PNG, TIFF, BMP, NIfTI, NRRD or MHA. Convert them; {WAY_OUT}"
            )
        if mask.unread:  # a list of annotations, which is asked for as tables are, or just a note beside masks
            continue
        if not owners:
            orphans.append(mask)
        for image in owners:
            if image.path in chosen:
                found[image.path].append(mask)
    _refuse_pictures_of_volumes(root, [(chosen[path], several) for path, several in found.items()])
    if orphans:
        raise ValueError(
            f"{root}: {len(orphans)} of {len(masks)} masks (such as {orphans[0].relative}: {orphans[0].reason}) go "
            "with no image; expected the image's own name, or with _mask, _label or _seg added. If these are images, "
            f"say so with --train_data#image_pattern '{pattern_of(orphans[0].relative)}' (a shell pattern); {WAY_OUT}"
        )
    joined = [(chosen[path], several) for path, several in found.items() if len(several) > 1]
    if not options.joins_masks:
        for image, several in joined:
            _refuse_different(root, image, several, options.anomalous_labels)
    if not options.mask_patterns:
        pairs = [(chosen[path], mask) for path, several in found.items() for mask in several]
        _refuse_doubtful(root, pairs, organs=options.anomalous_labels is None)
    notes = refuse_organs(root, [mask for several in found.values() for mask in several], options)
    if joined:
        image, several = joined[0]
        names = ", ".join(mask.relative for mask in several)
        notes.append(f"{len(joined)} images have several masks, which are joined (such as {image.relative}: {names})")
    return {path: tuple(mask.path for mask in several) for path, several in found.items()}, notes


def _is_named(mask: Role, owners: Sequence[Role], pairing: Pairing) -> bool:
    """Whether a file that may be a note is an image's: boxes by their place, others by the image's name in theirs.

    Where that is a sequence's (``T1``), the file's name must say mask and nothing else.
    """
    said = set(words(mask.stem))
    whole = said <= MASKS | QUALIFIERS | SOLITARY
    named = (set(pairing.case(owner)) for owner in owners)
    return any(mask.path.name.lower().endswith(BOXES) or (case <= said if case else whole) for case in named)


def kind_of(mask: Role) -> tuple[str, ...]:
    """The words of a mask's path less what tells the parts of one annotation apart: numbers, and left and right.

    The number of a reader stays: ``manual1`` and ``manual2`` are two opinions, ``lesion_1`` and ``lesion_2`` two parts.
    """
    kept: list[str] = []
    before = ""
    for word in (word for name in (*mask.folders, mask.stem) for word in words(name)):
        letters = word.rstrip("0123456789")
        if word in SIDES or (not letters and before not in READERS):
            continue
        kept.append(letters if letters in (MASKS | QUALIFIERS) - READERS else word)
        before = word
    return tuple(kept)


def _refuse_pictures_of_volumes(root: Path, found: Sequence[tuple[Role, Sequence[Role]]]) -> None:
    for image, masks in found:
        other = next((mask for mask in masks if mask.volume != image.volume), None)
        if other is None:
            continue
        if image.volume:
            advice = (
                f"{len([mask for mask in masks if not mask.volume])} pictures there do not say which slice each of "
                "them annotates. Stack them to one volume (NIfTI, NRRD or MHA) with the scan's geometry, named after it"
            )
        else:
            advice = "Save the mask as a picture of its image's size"
        raise ValueError(
            f"{root}: {other.relative} is a mask ({other.reason}) of {image.relative}, but one is a picture, the other "
            f"a volume; expected a mask on its image's grid. {advice}; {WAY_OUT}"
        )


def _refuse_doubtful(root: Path, found: Sequence[tuple[Role, Role]], organs: bool) -> None:
    """Ask whether masks that are called after predictions, or ``organs`` and no finding, mark anomalies."""
    asked = []
    for image, mask in found:
        said = {word for name in (*mask.folders, mask.stem) for word in words(name)}
        said -= {word for name in (*image.folders, image.stem) for word in words(name)}
        doubtful = said & DERIVED or (said & ORGANS if organs and not said & (FINDINGS | SOLITARY) else set())
        if doubtful:
            asked.append((mask, min(doubtful)))
    if asked:
        mask, word = asked[0]
        raise ValueError(
            f"{root}: {len(asked)} of {len(found)} masks are called after organs or predictions (such as "
            f"{mask.relative}: {word}); expected marks of anomalies, made by people. If that is what they "
            f"mark, say so with --train_data#mask_pattern '*{re.search(word, mask.relative, re.IGNORECASE)[0]}*'; "
            f"{SOME_LABELS}; {WAY_OUT}"
        )


def _refuse_different(root: Path, image: Role, masks: Sequence[Role], labels: Sequence[int] | None) -> None:
    """Raise ValueError unless the masks of one image are parts of one annotation."""
    if len({kind_of(mask) for mask in masks}) > 1:
        reason = "their names say different things, as readers or tissues do"
    elif (shared := overlap([mask.path for mask in masks], labels)) > SAME_PLACE:
        reason = f"they mark the same place ({100 * shared:.0f} % of one), as several readers do, not parts of it"
    else:
        return
    shown = ", ".join(mask.relative for mask in masks[:6]) + (f" and {len(masks) - 6} more" if len(masks) > 6 else "")
    examples = _patterns(masks[:2], image)
    raise ValueError(
        f"{root}: several masks for {image.relative}: {shown}; {reason}; expected one. Choose with "
        f"--train_data#mask_pattern '{examples[0]}', or join them with a pattern for each, '{','.join(examples)}'; "
        + WAY_OUT
    )


def _patterns(masks: Sequence[Role], image: Role) -> list[str]:
    """Shell patterns that tell such masks apart: by what their names have beyond the image's, or by their folders.

    Where neither does, as in folders within folders, by their whole paths.
    """
    rests = [mask.stem.removeprefix(image.stem) for mask in masks]
    letters = takewhile(lambda same: len(set(same)) == 1, zip(*(mask.stem for mask in masks), strict=False))
    start = len("".join(letter for letter, *_ in letters).rstrip("0123456789").rstrip(ascii_letters))
    options = (
        [rest if rest != mask.stem else "" for rest, mask in zip(rests, masks, strict=True)],
        [f"{mask.stem[start:]}." for mask in masks],
        [f"{mask.folders[-1]}/" if mask.folders else "" for mask in masks],
    )
    for texts in options:
        patterns = [f"*{pattern_of(text)}*" for text in texts]
        chosen = [[mask for mask in masks if fits(mask.relative, pattern)] for pattern in patterns]
        if all(texts) and chosen == [[mask] for mask in masks]:
            return patterns
    return [pattern_of(mask.relative) for mask in masks]
