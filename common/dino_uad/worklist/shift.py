"""Are the new scans what the model was fitted to? If most look odd, it is the model that does not fit, not they."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dino_uad.detector import NormalScans
from dino_uad.wording import plural
from dino_uad.worklist.rows import RunStore

HIGH, MOST = 0.1, 0.5
OTHER_KIND = {
    True: "volumes, and the model was calibrated on pictures: parts of the body that no picture showed (ends of the "
    "head) score high, and p-values mean little. Calibrate on normal volumes: python -m dino_uad calibrate",
    False: "pictures, and the model was calibrated on volumes: pictures are chosen and scaled in other ways than "
    "slices, and p-values mean little. Calibrate on normal pictures: python -m dino_uad calibrate",
}
AT_LEAST = 5
"""Fewer scans than this say nothing about a shift."""


@dataclass
class _Counts:
    """Scored scans of a list: all, those with a p-value, and those with a small one."""

    scored: int = 0
    known: int = 0
    high: int = 0
    unlike: Counter[str] = field(default_factory=Counter)
    """In what scans are outside of what the calibration scans were."""
    other: Counter[bool] = field(default_factory=Counter)
    """Those of another kind than what calibrated: whether they are volumes."""

    def add(self, scan: Mapping[str, Any], normal: NormalScans) -> None:
        """Count one scan."""
        self.scored += 1
        if scan.get("p_value") is not None:
            self.known += 1
            self.high += scan["p_value"] <= HIGH
        self.unlike.update(scan.get("unlike", []))
        slices = scan.get("slices")
        if slices and normal.seen.other_kind(slices):
            self.other[slices > 1] += 1


def warnings_of(store: RunStore, facts: Mapping[str, Any], normal: NormalScans) -> list[str]:
    """Sentences for the report, the most serious first; none where nothing is wrong and everything could be looked at.

    Args:
        store: the rows; ``unlike`` of a row lists in what it is outside of what the calibration scans were.
        facts: of the run.
        normal: what the scans are compared with.
    """
    counts = _Counts()
    for row in store.rows():
        if row["scan"]["status"] == "scored":
            counts.add(row["scan"], normal)
    found = [f"{count:,} of {counts.scored:,} scans are {OTHER_KIND[kind]}" for kind, count in counts.other.items()]
    found += _on_scores(counts, normal) + _on_looks(counts, normal)
    if counts.scored and not counts.known:
        found.append(
            "This model holds no calibration by whole scans: no p-values. python -m dino_uad calibrate adds it"
        )
    if facts["failed"]:
        found.append(f"{plural(facts['failed'], 'file')} could not be scored; the reasons stand at the end of the list")
    return found + [line for line in facts["calibration"] if "cannot promise" in line]


def _on_scores(counts: _Counts, normal: NormalScans) -> list[str]:
    """Whether the scans score higher than normal ones as a whole."""
    if counts.known >= AT_LEAST and counts.high > MOST * counts.known:
        return [
            f"{counts.high:,} of {counts.known:,} scans score higher than {1 - HIGH:.0%} of the normal validation "
            "scans. If they are not all ill, they are unlike what the model was fitted to (another scanner, protocol "
            "or part of the body): p-values and findings then mean little. Calibrate on normal scans of this kind: "
            "python -m dino_uad calibrate"
        ]
    if counts.known and normal.scans.smallest_p > HIGH:
        return [
            "Whether these scans score higher than normal ones as a whole was not looked at: with "
            f"{plural(int(normal.scans.groups), 'group')} of normal validation images no p-value is below "
            f"{normal.scans.smallest_p:.0%}; {round(1 / HIGH) - 1} groups are needed"
        ]
    return []


def _on_looks(counts: _Counts, normal: NormalScans) -> list[str]:
    """How many scans look unlike normal ones before they are scored, and in what."""
    found = [
        f"{count:,} of {counts.scored:,} scans: {what} outside of what the normal validation scans have"
        for what, count in counts.unlike.most_common()
    ]
    if counts.known and not normal.seen.known:
        found.append(
            "Spacing, intensities and orientation were not compared with the normal validation scans: that takes "
            f"{normal.seen.fewest} patients of them"
        )
    return found
