"""What was understood of a folder, as a table for people and as plain values for programs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from dino_uad.data.case import Case, Understood
from dino_uad.data.content import count_values
from dino_uad.data.roles import Role
from dino_uad.data.same_files import same_file_in_two_splits

ORDER = ("train", "valid", "test", None)
EXAMPLES = 3


def as_values(understood: Understood) -> dict[str, Any]:
    """Counts by split and class, patients, masks, files passed over, and notes."""
    cases = understood.cases
    return {
        "dataset_dir": str(understood.root),
        "kind": "volumes" if cases and cases[0].image.volume else "pictures",
        "splits_from": understood.splits_from,
        "patients_from": understood.patients_from,
        "splits": {
            split or "all": _counts([case for case in cases if case.split == split])
            for split in ORDER
            if any(case.split == split for case in cases)
        },
        "passed_over": passed_over(understood.passed),
        "notes": [*understood.notes, *_empty_images(cases), *same_file_in_two_splits(cases)],
    }


def as_text(values: dict[str, Any]) -> str:
    """The table that precedes a fit and that ``check`` prints."""
    lines = [f"{values['dataset_dir']}: {values['kind']}; splits {values['splits_from']}"]
    lines.append(f"  {'':8}{'normal':>9}{'anomalous':>11}{'masks':>7}{'patients':>10}  for example")
    for split, row in values["splits"].items():
        numbers = f"{row['normal']:>9}{row['anomalous']:>11}{row['masks']:>7}{row['patients']:>10}"
        lines.append(f"  {split:8}{numbers}  {', '.join(row['examples'])}")
    patients = list(dict.fromkeys(name for row in values["splits"].values() for name in row["patient_examples"]))
    lines.append(f"  patients: {values['patients_from']} (such as {', '.join(patients[:EXAMPLES])})")
    for reason, files in values["passed_over"].items():
        lines.append(f"  passed over: {files['count']} {reason} (such as {', '.join(files['examples'])})")
    lines += [f"  note: {note}" for note in values["notes"]]
    return "\n".join(lines)


def passed_over(roles: Sequence[Role]) -> dict[str, dict[str, Any]]:
    """Files passed over, by reason."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for role in roles:
        by_reason[role.reason].append(role.relative)
    return {reason: {"count": len(names), "examples": names[:EXAMPLES]} for reason, names in by_reason.items()}


def _counts(cases: Sequence[Case]) -> dict[str, Any]:
    kinds = Counter(case.anomalous for case in cases)
    firsts = {case.anomalous: case.image.relative for case in reversed(cases)}
    groups = list(dict.fromkeys(case.group for case in cases))
    return {
        "normal": kinds[False],
        "anomalous": kinds[True],
        "masks": sum(bool(case.labels) for case in cases),
        "patients": len(groups),
        "examples": [firsts[kind] for kind in sorted(firsts)],
        "patient_examples": groups[:EXAMPLES],
    }


def _empty_images(cases: Sequence[Case]) -> list[str]:
    """A note on images of one value: a model of them has nothing to learn from."""
    empty = [case for case in cases if count_values(case.image.path) == 1]
    if not empty:
        return []
    trained = [case for case in cases if case.split == "train" and case.trainable]
    every = trained and {case.image.path for case in trained} <= {case.image.path for case in empty}
    return [
        f"{len(empty)} images have the same value everywhere, as all-black ones do (such as {empty[0].image.relative})"
        + ("; all images of the fit are such: a model learns nothing from them" if every else "")
    ]
