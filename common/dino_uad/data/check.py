"""``python -m dino_uad check DIR``: what would be made of a folder, before anything is fitted on it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dino_uad.data.case import Case, Options
from dino_uad.data.cases import understand
from dino_uad.data.content import count_values
from dino_uad.data.image_size import size_or_none
from dino_uad.data.marks import has_anomaly, scan_loader
from dino_uad.data.series import chosen_series
from dino_uad.data.summary import as_text, as_values
from dino_uad.data.verify import check_sizes
from dino_uad.transforms import LoadScan, first_line, marked

SAMPLE = 12  # images a split and class that are read for their values


def check(
    dataset_dir: str,
    *,
    pattern: str = "*",
    kind: str | None = None,
    normal: str | None = None,
    mask_pattern: str | None = None,
    anomalous_labels: Sequence[int] | None = None,
    image_pattern: str | None = None,
    group_pattern: str | None = None,
    series: str | None = None,
    valid_fraction: float = 0.15,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> dict[str, Any]:
    """Print what a fit would make of a folder: images by split and class, masks, patients, files passed over, oddities.

    The options are those of ``train_data`` in a bundle's train.json; nothing is written.

    Args:
        dataset_dir: folder of the data set.
        pattern: shell pattern of the image files, e.g. "*t2f*".
        kind: "2d" or "3d" where the folder holds both pictures and volumes.
        normal: names or shell patterns of the normal folders, several with commas.
        mask_pattern: shell pattern of the masks, or several with commas, which join them; "none" ignores all.
        anomalous_labels: values of the masks that mark anomalies, such as "[2]"; all above 0 when None.
        image_pattern: shell pattern of files that are images although they look like masks.
        group_pattern: regular expression that finds the patient in an image's path.
        series: shell pattern that chooses among several stacks in one DICOM folder.
        valid_fraction: share of the patients in a drawn validation split.
        test_fraction: share of the patients in a drawn test split.
        seed: of the drawn splits.

    Returns:
        The same as plain values.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: something is not understood; the message says what to do.
    """
    options = Options.among(locals())
    understood = understand(Path(os.path.expanduser(dataset_dir)), options)
    check_sizes(chosen_series([case.as_dict() for case in understood.cases], series))
    values = as_values(understood)
    values["images"] = {}
    for split in values["splits"]:
        for anomalous in (False, True):
            cases = [c for c in understood.cases if (c.split or "all") == split and c.anomalous == anomalous]
            if cases:
                values["images"][f"{split}, {'anomalous' if anomalous else 'normal'}"] = look(
                    cases, values["notes"], series
                )
    values["notes"] += doubtful_masks(understood.cases)
    print(as_text(values))
    for name, facts in values["images"].items():
        print(f"  {name}: {', '.join(f'{key} {value}' for key, value in facts.items())}")
    return values


def look(cases: Sequence[Case], notes: list[str], series: str | None = None) -> dict[str, str]:
    """Sizes (of all), and channels and values (of a sample spread over the list) of images; adds to ``notes``."""
    sizes = Counter(size for case in cases if (size := size_or_none(case.image.path)) is not None)
    facts = {"files": str(len(cases))}
    if sizes:
        common = ", ".join("x".join(map(str, size)) for size, _ in sizes.most_common(3))
        facts["sizes"] = common + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else "")
    places = np.unique(np.linspace(0, len(cases) - 1, min(SAMPLE, len(cases))).astype(int))
    lows, highs, channels = [], [], Counter()
    load = LoadScan()
    for case in (cases[place] for place in places):
        try:
            image = load(case.image.path, series=series)
        except (ValueError, OSError) as error:
            notes.append(f"cannot be read: {first_line(error)}")
            continue
        channels["colour" if image.shape[0] == 3 else "grey"] += 1
        lows.append(float(image.min()))
        highs.append(float(image.max()))
    if lows:
        facts |= {"values": f"{min(lows):.4g} to {max(highs):.4g}", "channels": " and ".join(channels)}
        if min(lows) >= 0 and max(highs) < 0.2 and not cases[0].image.volume:
            notes.append(
                f"the {len(lows)} images read of {cases[0].image.relative} and others are dark: no value above "
                f"{max(highs):.3g} of 1"
            )
    return facts


def doubtful_masks(cases: Sequence[Case]) -> list[str]:
    """Notes on masks that are blank though an image's folder says anomalous, mark most of it, or look like pictures."""
    labelled = [case for case in cases if case.labels and case.anomalous]
    blank = [case for case in labelled if not has_anomaly(case.labels, case.anomalous_labels)]
    seen = [label for case in labelled[:: max(1, len(labelled) // SAMPLE)] for label in case.labels[:1]]
    many = [label for label in seen if label.is_file() and count_values(label) is None]
    notes = [f"{len(blank)} anomalous images have a blank mask (such as {blank[0].image.relative})"] if blank else []
    values, full = set(), []
    for label in seen:
        mask = scan_loader()(label, anomalous_labels=cases[0].anomalous_labels)
        if cases[0].image.volume and count_values(label):
            values |= set(np.unique(np.asarray(mask)).tolist())
        if float(marked(mask).float().mean()) > 0.5:
            full.append(label)
    if len(values) > 2:
        listed = ", ".join(f"{value:g}" for value in sorted(values))
        notes.append(
            f"masks looked at have the values {listed}: all above 0 count as anomalies, those of organs too, unless "
            "anomalous_labels names those that are"
        )
    if 2 * len(full) > len(seen):
        notes.append(
            f"{len(full)} of {len(seen)} masks looked at mark more than half of their image (such as {full[0].name}): "
            "are they inverted, or do they mark an organ?"
        )
    if many:
        notes.append(
            f"{len(many)} of {len(seen)} masks looked at have as many values as pictures (such as {many[0].name}); "
            "marked is what reaches half of the largest"
        )
    return notes
