"""The one function the bundle configs call for their data: ``datalist(dataset_dir, split)``."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from dino_uad.data.layout import LAYOUTS, Entry, scan
from dino_uad.data.split import patient_groups, split_groups
from dino_uad.data.verify import check_sizes, has_anomaly, readable
from dino_uad.data.walk import natural_key

SPLITS = ("train", "valid", "test", "all")
ERRORS = ("raise", "skip")
KINDS = ("2d", "3d", None)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """An image with its mask, before it becomes a dictionary."""

    image: Entry
    label: Path | None
    anomalous: bool
    group: str
    split: str | None

    def as_dict(self) -> dict:
        item = {"image": str(self.image.path), "anomalous": int(self.anomalous), "group": self.group}
        return item if self.label is None else {**item, "label": str(self.label)}


def datalist(
    dataset_dir: str | Path,
    split: str = "train",
    *,
    normal_only: bool = False,
    pattern: str = "*",
    kind: str | None = None,
    valid_fraction: float = 0.15,
    test_fraction: float = 0.2,
    seed: int = 0,
    group_pattern: str | None = None,
    on_error: str = "raise",
) -> list[dict]:
    """List the images of one split of a data set (layouts: see :data:`dino_uad.data.layout.LAYOUTS`).

    Each item has ``image`` (path), ``anomalous`` (0 or 1), ``group`` (the patient where names tell) and, for anomalous
    images with a mask, ``label`` (path). An absent label means that nothing is anomalous, or, where
    ``anomalous`` is 1, that the data set has no masks.

    *Splits.* Folders named train, valid (val) and test decide. Without a valid folder, ``valid_fraction`` of the
    groups in train is drawn, seeded. Without any split folder, train, valid and test are drawn by group; patients
    with an anomalous picture always go to test. Training never lists an anomalous picture, nor an anomalous volume
    without mask; of those with a mask, transforms leave the annotated slices out.

    Args:
        dataset_dir: folder of the data set; for ``split="all"`` also a single image.
        split: "train", "valid", "test", or "all" (every image; for inference).
        normal_only: list only what training may use (normal images and annotated volumes), e.g. to select a model and
            to calibrate thresholds.
        pattern: shell pattern for image file names, e.g. ``"*t2f*"`` for one of several sequences.
        kind: "2d" or "3d" where the folder holds both pictures and volumes.
        valid_fraction: share of the groups in a drawn validation split.
        test_fraction: share of the groups in a drawn test split.
        seed: of the drawn splits.
        group_pattern: regular expression that finds the patient in an image's name.
        on_error: "raise" checks sizes from headers now and leaves other errors to loading;
            "skip" reads every file now and leaves the bad ones out, named in the log.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images, pictures mixed with volumes, duplicate names, missing masks, mask of another size,
            nothing in the split.
    """
    for name, found, known in (("split", split, SPLITS), ("on_error", on_error, ERRORS), ("kind", kind, KINDS)):
        if found not in known:
            raise ValueError(f"{name} is {found!r}; expected one of {', '.join(map(str, known))}")
    root = Path(dataset_dir).expanduser()
    if split == "all" and root.is_file():
        return [{"image": str(root), "anomalous": 0, "group": root.stem}]
    entries = _entries(root, pattern, kind, mixed=split == "all")
    cases = _cases(root, entries, group_pattern, strict=split != "all", whole=pattern == "*")
    if split != "all":
        cases = _assign(root, cases, valid_fraction, test_fraction, seed)
        cases = [case for case in cases if case.split == split]
    if normal_only or split == "train":
        cases = [case for case in cases if _trainable(case)]
    items = [case.as_dict() for case in cases]
    items = readable(items) if on_error == "skip" else check_sizes(items)
    if not items:
        raise ValueError(f"{root}: nothing left in split {split!r}{' (normal only)' if normal_only else ''}; {LAYOUTS}")
    counts = Counter(item["anomalous"] for item in items)
    logger.info("%s: %s: %d normal, %d anomalous", root, split, counts[0], counts[1])
    return items


def _entries(root: Path, pattern: str, kind: str | None, mixed: bool) -> list[Entry]:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder. Give the data set's folder as dataset_dir; {LAYOUTS}")
    entries = scan(root, pattern)
    if kind is not None:
        entries = [entry for entry in entries if entry.volume == (kind == "3d")]
    images = [entry for entry in entries if not entry.mask]
    if not images:
        found = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "an empty folder"
        raise ValueError(f"{root}: no images (pattern {pattern!r}, kind {kind}). Found {found}; {LAYOUTS}")
    volumes = [entry.volume for entry in images]
    if any(volumes) and not all(volumes) and not mixed:
        picture, volume = images[volumes.index(False)].path.name, images[volumes.index(True)].path.name
        raise ValueError(
            f"{root}: found {volumes.count(False)} pictures (such as {picture}) mixed with {volumes.count(True)} "
            f"volumes (such as {volume}); expected one kind. "
            "Choose with kind='2d' or kind='3d', or with pattern."
        )
    return entries


def _cases(root: Path, entries: list[Entry], group_pattern: str | None, strict: bool, whole: bool) -> list[Case]:
    """Join images with masks, and tell class and patient."""
    images = [entry for entry in entries if not entry.mask]
    if strict:
        _refuse_duplicates(root, images)
    masks = {(entry.context, name): entry.path for entry in entries if entry.mask for name in (entry.case, entry.stem)}
    labels = [_label(entry, masks) for entry in images]
    if whole and masks and not any(labels):
        some = next(iter(masks.values()))
        raise ValueError(
            f"{root}: none of the {len(set(masks.values()))} masks (such as {some}) goes with an image; expected the "
            f"image's own name, or with _mask, _label or _seg added; {LAYOUTS}"
        )
    anomalous = [_is_anomalous(entry, label, images) for entry, label in zip(images, labels, strict=True)]
    if strict:
        _refuse_missing_masks(root, images, labels, anomalous)
    stems = Counter(entry.case for entry in images)
    names = [
        entry.case if stems[entry.case] == 1 and entry.case else "/".join((*entry.context, entry.case))
        for entry in images
    ]
    groups = patient_groups(names, all(entry.volume for entry in images), group_pattern)
    return [
        Case(entry, label if bad else None, bad, group, entry.split)
        for entry, label, bad, group in zip(images, labels, anomalous, groups, strict=True)
    ]


def _label(image: Entry, masks: dict[tuple[tuple[str, ...], str], Path]) -> Path | None:
    """Find an image's mask: in the same context, or (MVTec's ground_truth) in one without the split's name."""
    shared = tuple(part for part in image.context if part != "test")
    for context in (image.context, shared):
        for name in (image.stem, image.case):
            if (context, name) in masks:
                return masks[context, name]
    return None


def _is_anomalous(image: Entry, label: Path | None, images: list[Entry]) -> bool:
    if image.anomalous is not None:
        return image.anomalous
    classes = any(other.anomalous is False for other in images)
    if classes and image.split in ("valid", "test") and len(image.context) > 1:
        return True  # MVTec: test/<defect>, beside a folder of good images
    return label is not None and has_anomaly(label)


def _refuse_duplicates(root: Path, images: list[Entry]) -> None:
    first: dict[tuple, Path] = {}
    for entry in images:
        # Pictures called t1.png, t2.png, ... are numbered; volumes of those names are sequences of one case.
        name = entry.case if entry.volume else entry.case or entry.stem
        other = first.setdefault((entry.context, name), entry.path)
        if other != entry.path:
            raise ValueError(
                f"{root}: two images of one name: {other.relative_to(root)} and {entry.path.relative_to(root)}; "
                "expected one image a case. Remove one, or choose with pattern (e.g. pattern='*flair*')."
            )


def _refuse_missing_masks(root: Path, images: list[Entry], labels: list[Path | None], anomalous: list[bool]) -> None:
    missing = [entry for entry, label, bad in zip(images, labels, anomalous, strict=True) if bad and label is None]
    if missing and sum(anomalous) > len(missing):
        raise ValueError(
            f"{root}: {len(missing)} of {sum(anomalous)} anomalous images have no mask (such as "
            f"{missing[0].path.relative_to(root)}); expected a mask for each, or for none. "
            "Add the masks or move the images away."
        )
    if missing:
        logger.warning("%s: no masks for the %d anomalous images: image-level metrics only", root, len(missing))


def _trainable(case: Case) -> bool:
    """Whether a normal model may be fitted on it: a normal image, or a volume that tells which slices are not."""
    return not case.anomalous or (case.image.volume and case.label is not None)


def _assign(root: Path, cases: list[Case], valid_fraction: float, test_fraction: float, seed: int) -> list[Case]:
    """Give every case a split: its folder's, or a drawn one."""
    if not any(case.split for case in cases):
        return _draw_all(root, cases, valid_fraction, test_fraction, seed)
    outside = sum(case.split is None for case in cases)
    if outside:
        logger.warning("%s: %d images outside the train, valid and test folders are left out", root, outside)
    train = [case for case in cases if case.split == "train" and _trainable(case)]
    if not train:
        raise ValueError(f"{root}: no normal images for training; {LAYOUTS}")
    if any(case.split == "valid" for case in cases):
        return cases
    valid, _ = split_groups([case.group for case in train], [valid_fraction], seed, root)
    logger.info("%s: no valid folder: %d groups of train drawn with seed %d", root, len(valid), seed)
    return [replace(case, split="valid") if case.split == "train" and case.group in valid else case for case in cases]


def _draw_all(root: Path, cases: list[Case], valid_fraction: float, test_fraction: float, seed: int) -> list[Case]:
    """Draw train, valid and test by group; without anomalies train and valid only."""
    pictures = not cases[0].image.volume
    anomalous = {case.group for case in cases if case.anomalous}
    fixed = anomalous if pictures else set()
    groups = sorted({case.group for case in cases} - fixed, key=natural_key)
    if not groups:
        raise ValueError(
            f"{root}: all {len(cases)} images belong to patients with anomalies: no normal images for training"
        )
    if anomalous:
        test, valid, _ = split_groups(groups, [test_fraction, valid_fraction], seed, root)
    else:
        test, (valid, _) = set(), split_groups(groups, [valid_fraction], seed, root)
    logger.info(
        "%s: no split folders: %d test, %d valid of %d groups drawn, seed %d",
        root,
        len(test | fixed),
        len(valid),
        len(groups),
        seed,
    )

    def split_of(case: Case) -> str:
        return "test" if case.group in test | fixed else "valid" if case.group in valid else "train"

    return [replace(case, split=split_of(case)) for case in cases]
