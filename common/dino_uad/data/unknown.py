"""Images of which nothing says whether they are normal, though something could: they are asked for, not learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dino_uad.data.case import Case
from dino_uad.data.pairs import Pairing
from dino_uad.data.patterns import matches, pattern_of
from dino_uad.data.roles import Role
from dino_uad.data.stems import numbered_pattern
from dino_uad.data.tables import table_of

ALL_NORMAL = "say that they are: --train_data#normal '*' (from Python normal='*'; of some a pattern, '*_0.png')"


def refuse_unknown(
    root: Path, cases: Sequence[Case], undecided: Sequence[Role], others: Sequence[Role], pairing: Pairing
) -> None:
    """Ask where images without a class and without a mask might be anomalous.

    Args:
        root: the data set's folder, for the message.
        cases: all cases.
        undecided: their images of which neither folder, name nor mask tells the class.
        others: files that are no images; a table among them may tell it.
        pairing: knows which images are of one case.

    Raises:
        ValueError: classes of other images are told by folders; another volume of the same case has a mask; or a table
            that is not read lists the images: who is ill in it and has no mask would be learnt as normal.
    """
    masked = any(case.labels for case in cases)
    if undecided and not masked and len(undecided) < len(cases):
        told = [case for case in cases if case.image not in undecided]
        raise ValueError(
            f"{root}: nothing says whether {len(undecided)} of {len(cases)} images are normal (such as "
            f"{undecided[0].relative}), though folders or names say it of others (such as {told[0].image.relative}, "
            f"{'anomalous' if told[0].anomalous else 'normal'}). Put them into a folder called normal"
            f"{_advice(undecided[0], told)}, or move the images away."
        )
    _refuse_half_masked(root, cases, undecided, pairing)
    if undecided and (table := table_of(undecided, others)) is not None:
        without = f" of the {len(undecided)} without a mask" if masked else ""
        raise ValueError(
            f"{root}: {table.path} {table.says} and may tell which images are normal{without}; it is not read, and no "
            f"folder, name or mask tells it. Put the images into folders called normal and abnormal; if all{without} "
            f"are normal, {ALL_NORMAL}"
        )


def _advice(image: Role, told: Sequence[Case]) -> str:
    """Option that declares such an image normal, with those known to be; '' if it would match anomalous ones."""
    normal = [case.image for case in told if not case.anomalous][:1]
    patterns = dict.fromkeys(_pattern_of(one) for one in (*normal, image))
    ill = [case.image for case in told if case.anomalous]
    if any(matches(one.path.name.casefold(), one.branch, pattern.casefold()) for one in ill for pattern in patterns):
        return ""
    return f", say which are normal, as in --train_data#normal '{','.join(patterns)}' (shell patterns)"


def _pattern_of(image: Role) -> str:
    return pattern_of(image.branch[-1]) if image.branch else numbered_pattern(image.path.name)


def _refuse_half_masked(root: Path, cases: Sequence[Case], undecided: Sequence[Role], pairing: Pairing) -> None:
    """Ask where one volume of a case has a mask and another one has none: CT and PET, or a series and its frames."""
    by_group: dict[tuple, Case] = {}
    by_name: dict[tuple, Case] = {}
    for case in cases:
        if case.labels and case.image.volume:
            by_group.setdefault((case.image.folders, case.group), case)
            by_name.setdefault((case.image.folders, pairing.case(case.image)), case)
    groups = {case.image: case.group for case in cases}
    for image in undecided:
        name = pairing.case(image)
        others = [by_name.get((image.folders, name[:end])) for end in range(1, len(name) + 1)]
        others.append(by_group.get((image.folders, groups[image])) if image.branch else None)
        other = next(filter(None, others), None)
        if other is not None:
            raise ValueError(
                f"{root}: {image.relative} has no mask, but {other.image.relative} of the same case has "
                f"({other.labels[0].relative_to(root)}); expected one image a case, or a mask for each. Choose "
                "with pattern, as in --train_data#pattern '*flair*' (or '*_0000*', 'folder/*')."
            )
