"""Splits of a data set's cases: the folders', or drawn by patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dino_uad.data.case import LAYOUTS, SOME_LABELS, WAY_OUT, Case, Options
from dino_uad.data.same_files import join_copies
from dino_uad.data.split import draw_test, split_groups


def assign_splits(root: Path, cases: list[Case], options: Options) -> tuple[list[Case], str, list[str]]:
    """Give every case a split: its folder's, or a drawn one.

    Returns:
        The cases that are in a split, how splits are known, and notes for a person.

    Raises:
        ValueError: no normal image for training, or too few patients to draw from.
    """
    if not {"valid", "test"} & {case.split for case in cases} and _is_whole(cases):
        cases, copies = join_copies(cases)
        drawn, notes = _draw_all(root, cases, options)
        return drawn, f"drawn by patient, seed {options.seed}", copies + notes + _without_anomaly(drawn)
    outside = [case for case in cases if case.split is None]
    notes = []
    if outside:
        notes.append(
            f"{len(outside)} images outside the train, valid and test folders are left out (such as "
            f"{outside[0].image.relative})"
        )
    inside = [case for case in cases if case.split is not None]
    train = [case for case in inside if case.split == "train" and case.trainable]
    if not train:
        raise ValueError(f"{root}: no normal images for training; {LAYOUTS}")
    if any(case.split == "valid" for case in inside):
        return inside, "told by folders", notes + _without_anomaly(inside)
    train, copies = join_copies(train)
    joined = {case.image.path: case.group for case in train}
    inside = [replace(case, group=joined.get(case.image.path, case.group)) for case in inside]
    valid, _ = split_groups([case.group for case in train], [options.valid_fraction], options.seed, root)
    told = f"told by folders; valid drawn from train by patient, seed {options.seed}"
    moved = [replace(case, split="valid") if case.split == "train" and case.group in valid else case for case in inside]
    return moved, told, notes + copies + _without_anomaly(moved)


def _is_whole(cases: Sequence[Case]) -> bool:
    """Whether nothing is split: no split folder, or that of nnU-Net's ``imagesTr`` alone, all of it annotated."""
    splits = {case.split for case in cases}
    return splits <= {None} or (splits == {"train"} and any(case.labels for case in cases))


def _draw_all(root: Path, cases: list[Case], options: Options) -> tuple[list[Case], list[str]]:
    """Draw train, valid and test by patient; without anomalies train and valid only. Also notes for a person."""
    anomalous = {case.group for case in cases if case.anomalous}
    normal = {case.group for case in cases} - anomalous
    usable = Counter(case.group for case in cases if case.trainable)
    if not usable:
        raise ValueError(
            f"{root}: all {len(cases)} images are anomalous, by their masks or folders: no normal images for training. "
            f"Add images of normal cases, in a folder called normal or with blank masks; {SOME_LABELS}; {WAY_OUT}"
        )
    always, notes = anomalous - usable.keys(), []
    mixed = anomalous & usable.keys()
    if not cases[0].image.volume and mixed:
        if sum(usable[group] for group in mixed) <= sum(usable[group] for group in normal):
            always = anomalous
        else:
            notes.append(
                f"{len(mixed)} patients have normal and anomalous pictures, and most of the normal ones: of those not "
                "drawn for the test the fit takes the normal pictures"
            )
    test = draw_test(anomalous, normal, options.test_fraction, options.seed, always) if anomalous else set()
    rest = (anomalous | normal) - test
    where = f"{root}, without the {len(test)} of {len(rest | test)} groups that are the test's" if test else root
    valid, _ = split_groups(rest, [options.valid_fraction], options.seed, where)

    def split_of(case: Case) -> str:
        return "test" if case.group in test else "valid" if case.group in valid else "train"

    return [replace(case, split=split_of(case)) for case in cases], notes


def _without_anomaly(cases: Sequence[Case]) -> list[str]:
    if any(case.anomalous for case in cases if case.split == "test"):
        return []
    return ["no anomalous image in a test split: there is nothing to evaluate a model on"]
