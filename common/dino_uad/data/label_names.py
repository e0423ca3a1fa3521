"""What ``dataset.json`` of MSD and nnU-Net calls the labels beside it: organs, or lesions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dino_uad.data.case import WAY_OUT, Options
from dino_uad.data.patterns import pattern_of
from dino_uad.data.roles import Role
from dino_uad.data.words import FINDINGS, ORGANS, SOLITARY, words

MORE_ORGANS = {
    *("atrium", "atria", "ventricular", "myocardium", "stomach", "colon", "esophagus", "oesophagus"),
    *("gallbladder", "duodenum", "adrenal", "rectum", "uterus", "femur", "rib", "ribs"),
    *("vena", "trachea", "thyroid", "spine", "sacrum", "hip"),
}
NO_ORGANS = {"foreground", "background", "tissue", "tissues"}


def label_names(root: Path, masks: Sequence[Role]) -> tuple[Path, dict[str, str]] | None:
    """The ``dataset.json`` beside the masks' folder, or in ``root``, and its names by label; None if there is none.

    MSD writes ``{"1": "liver"}``, nnU-Net ``{"liver": 1}``, or ``{"whole tumor": [1, 2]}`` for regions.
    """
    folders = dict.fromkeys((*(mask.path.parent.parent for mask in masks if root in mask.path.parent.parents), root))
    for path in (folder / "dataset.json" for folder in folders):
        try:
            labels = json.loads(path.read_text(encoding="utf-8")).get("labels")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(labels, Mapping):
            pairs = ((k, v) if isinstance(v, str) else (str(v), str(k)) for k, v in labels.items())
            return path, {label: name for label, name in pairs if label not in ("0", "ignore") and name != "background"}
    return None


def refuse_organs(root: Path, masks: Sequence[Role], options: Options) -> list[str]:
    """A note on the labels that ``dataset.json`` names.

    Args:
        root: the data set's folder.
        masks: those of its images.
        options: by ``anomalous_labels`` the user says which of them mark anomalies, by ``mask_pattern`` that all do.

    Raises:
        ValueError: some are called after organs, and the user said neither.
    """
    found = label_names(root, masks) if masks else None
    if found is None or not found[1]:
        return []
    path, names = found
    listed = ", ".join(f"{label} {name}" for label, name in names.items())
    organs = [name for name in names.values() if _is_organ(name)]
    if options.anomalous_labels is not None:
        return [f"labels of {path.relative_to(root)}: {listed}"]
    if not organs or options.mask_patterns:
        return [f"labels of {path.relative_to(root)}: {listed}; every one counts as an anomaly"]
    folder = pattern_of(masks[0].folders[-1]) + "/*" if masks[0].folders else "NAME"
    others = [label for label, name in names.items() if name not in organs and name != "ignore"]
    lesions = sorted({int(number) for label in others for number in re.findall(r"\d+", label)})
    if not lesions:
        advice = "If the images are normal, say so: --train_data#normal '*' --train_data#mask_pattern none"
    else:
        advice = (
            f"Say which mark anomalies: --train_data#anomalous_labels '{lesions}'; or, where 1 is the organ and 2 the "
            f"lesion, let the fit see the organ alone: --slices#preset liver_ct --train_data#mask_pattern '{folder}'"
        )
    raise ValueError(
        f"{path}: the labels are {listed}, of which {', '.join(organs)} name organs; expected marks of anomalies, as "
        f"every value above 0 counts as one. {advice}. If all labels mark anomalies, --train_data#mask_pattern "
        f"'{folder}' alone says so; {WAY_OUT}"
    )


def _is_organ(name: str) -> bool:
    said = set(words(name))
    return bool(said & (ORGANS | MORE_ORGANS) - NO_ORGANS) and not said & (FINDINGS | SOLITARY)
