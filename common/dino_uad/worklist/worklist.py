"""The list of one output folder: what of a data list is new, what was found, and the files that tell it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import dino_uad
from dino_uad.data import ScanList
from dino_uad.describe import describe_part
from dino_uad.detector import AnomalyDetector, NormalScans
from dino_uad.digests import digest_file, digest_json
from dino_uad.embeddings import backbone_facts
from dino_uad.findings import Finding
from dino_uad.transforms import NOTHING_SCORED, anonymous_name, nothing_scored
from dino_uad.wording import plural, visible, were
from dino_uad.worklist.file_state import entry_state, file_state
from dino_uad.worklist.report import write_report
from dino_uad.worklist.rows import SAVED, RunStore
from dino_uad.worklist.tables import write_tables

SOME_FAILED = 3
"""Exit status of a run that scored what it could, where some files could not be read."""
KEYS = {"scored": "scored", "failed": "failed", "passed_over": "passed over"}
"""How ``scores.json`` calls the numbers of rows of each status."""

logger = logging.getLogger(__name__)


class Worklist:
    """Keeps the rows of an inference run in its output folder and writes the tables.

    A second run with the same model and settings scores only files that are new, have changed, failed before, or whose
    saved maps are gone; another model or other settings start afresh. A name that a map has stays its file's, in the
    lists of all runs into the folder. Nothing is written, and nothing forgotten, before the run starts.

    Rows of files that are not among a run's stay, and ``notes`` say so; those of files that failed or were passed over
    go where the file is gone. They have no part in the exit status.

    Args:
        output_dir: where maps and tables go.
        model: the ``model.pt``.
        dataset_dir: folder below which files are named.
        options: of the label map (``displayable_configs``).
        settings: what else the results depend on (JSON types).
        resume: False scores all files again.
        anonymous_names: number files by the hash of their path, as ``SaveMapd`` does, and keep no path.
        network: the detector; its backbone, its head and what is around them count as settings.
        steps: other parts that results depend on, such as preprocessing and inferer, by their classes and settings.
    """

    def __init__(
        self,
        output_dir: str | Path,
        model: str | Path,
        dataset_dir: str | Path = ".",
        options: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        resume: bool = True,
        anonymous_names: bool = False,
        network: AnomalyDetector | None = None,
        steps: Sequence[Any] = (),
    ) -> None:
        self.folder, self.model, self.dataset_dir = Path(output_dir), Path(model), Path(dataset_dir)
        self.options, self.settings = dict(options or {}), dict(settings or {})
        self.resume, self.anonymous_names = resume, anonymous_names
        self.network, self.steps = network, list(steps)
        self.kept = 0
        self._passed: list[tuple[str, str]] = []
        self._states: dict[str, str] = {}
        self._of_this_run: set[str] = set()

    @cached_property
    def store(self) -> RunStore:
        """The rows on disk."""
        facts = [dino_uad.__version__, digest_file(self.model), self.options, self.settings, self.anonymous_names]
        facts += [self.network and _network_facts(self.network), [describe_part(step) for step in self.steps]]
        return RunStore(self.folder, digest_json(facts, default=str))

    def unscored(self, data: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The entries of a data list that are to be scored."""
        self._passed = data.passed if isinstance(data, ScanList) else []
        known = {source: state for source, state, row in self.store.states() if self._saved(row)} if self.resume else {}
        # As they are before they are read: a file that is replaced while the run goes on is scored again by the next.
        self._states = {self._source(item["image"]): entry_state(item) for item in data}
        self._of_this_run = {*self._states, *(self._source(source) for source, _ in self._passed)}
        self.store.remark = self._remark
        new = [item for item in data if known.get(source := self._source(item["image"])) != self._states[source]]
        self.kept = len(data) - len(new)
        if self.kept:
            logger.info(f"{self.kept} of {len(data)} files are scored already, by this model with these settings")
        return new

    def start(self) -> None:
        """Begin to change the list; everything that may refuse the run has been made by now."""
        if not self.resume:
            self.store.set_aside()
        self._forget_failures_of_files_that_are_gone()
        scored = {source for source, _, _ in self.store.states()}
        for source, reason in self._passed:
            if self._source(source) not in scored:
                name = self.name(source)
                row = {"file": name, "status": "passed over", "findings": None, "reason": f"{name}: {reason}"}
                self._add(source, row)

    def sources(self) -> dict[str, str]:
        """Saved file to the file it was made from, of all runs' rows; empty with ``anonymous_names``."""
        if self.anonymous_names:
            return {}
        rows = self.store.saved()
        return {row[key]: source for source, row in rows for key in SAVED if row.get(key)}

    def add(
        self,
        source: str,
        item: Mapping[str, Any],
        seconds: float,
        picture: bytes | None = None,
        unlike: Sequence[str] = (),
    ) -> None:
        """Keep what was found in a file.

        Args:
            source: the file.
            item: after postprocessing, with ``scan``, ``slices``, ``findings`` and ``saved``.
            seconds: that it took.
            picture: thumbnail.
            unlike: in what it is outside of what the calibration scans were.
        """
        findings: Sequence[Finding] = item.get("findings", [])
        largest = max(findings, key=lambda finding: (finding.size or 0.0, finding.voxels), default=None)
        row = {"file": self.name(source), "status": "scored", **item.get("scan", {}), "findings": len(findings)}
        if largest is not None:
            row |= {"largest_size": largest.size, "largest_diameter": largest.diameter}
            row |= {"size_unit": largest.unit, "diameter_unit": largest.diameter_unit}
            row |= {"peak": findings[0].peak, "peak_slice": findings[0].slice}
        saved = {key: Path(path).name for key, path in item.get("saved", {}).items()}
        row |= {"seconds": seconds, "unlike": list(unlike), "notes": list(item.get("notes", [])), "reason": "", **saved}
        if nothing_scored(item):  # no finding does not mean normal
            row |= {"status": "failed", "findings": None, "reason": f"{self.name(source)}: {NOTHING_SCORED}"}
            logger.warning(f"not scored: {visible(row['reason'])}")
        found = [finding.as_dict() for finding in findings]
        self._add(source, row, item.get("slices", []), found, picture)

    def fail(self, source: str, reason: str) -> None:
        """Keep that a file could not be read, and why."""
        reason = reason.replace(str(source), self.name(source)) if self.anonymous_names else reason
        logger.warning(f"not scored: {visible(reason)}")
        row = {"file": self.name(source), "status": "failed", "findings": None, "reason": reason}
        self._add(source, row)

    def finish(self, facts: Mapping[str, Any], normal: NormalScans) -> None:
        """Write the tables and the report.

        Args:
            facts: for the head of ``scores.json``.
            normal: scores of normal validation scans, to show beside the new ones.
        """
        whole = {key: self.store.count(status) for key, status in KEYS.items()}
        here = {key: self._count_of_this_run(status) for key, status in KEYS.items()}
        facts = {**facts, **whole, "this_run": here}
        write_tables(self.store, self.folder, facts)
        write_report(self.store, self.folder / "report.html", facts, normal)
        if here["passed_over"]:
            passed = were(here["passed_over"], "file")
            logger.warning(f"{passed} passed over and not scored; scores.csv says why, at its end")
        others = sum(whole.values()) - sum(here.values())
        told = f"; and {plural(others, 'row')} of earlier runs, as their notes say" if others else ""
        logger.info(
            f"scores.csv, report.html: {plural(here['scored'], 'file')} scored ({self.kept} before this run), "
            f"{here['failed']} not{told}"
        )

    def exit(self, on_error: str = "report") -> None:
        """End the process with status 3 if some files of this run could not be scored; ``scores.csv`` says why.

        Args:
            on_error: "skip" says that such files were expected, and ends with status 0.
        """
        failed = self._count_of_this_run("failed")
        self.store.close()
        if failed:
            logger.warning(f"{plural(failed, 'file')} could not be scored; scores.csv says why, at its end")
            if on_error != "skip":
                raise SystemExit(SOME_FAILED)

    def name(self, source: str | Path) -> str:
        """How a file is called in the tables."""
        if self.anonymous_names:
            return anonymous_name(source)
        path, root = Path(source), Path(os.path.expanduser(self.dataset_dir))
        return path.relative_to(root).as_posix() if path.is_relative_to(root) and path != root else path.name

    def _count_of_this_run(self, status: str) -> int:
        return sum(source in self._of_this_run for source in self.store.sources(status))

    def _remark(self, source: str) -> str:
        """What the list says of a row that this run has not made, nor found up to date."""
        if source in self._of_this_run:
            return ""
        return (
            f"of an earlier run: {'the file is gone' if self._is_gone(source) else 'not among the files of this one'}"
        )

    def _is_gone(self, source: str) -> bool:
        """Whether a file of an earlier run is not there any more; of anonymous ones nobody knows."""
        return not self.anonymous_names and not os.path.lexists(source)

    def _forget_failures_of_files_that_are_gone(self) -> None:
        for status in ("failed", "passed over"):
            for source in [one for one in self.store.sources(status) if self._is_gone(one)]:
                self.store.forget(source)

    def _add(self, source: str, row: Mapping[str, Any], *found: Any) -> None:
        key = self._source(source)
        self.store.add(key, self._states.get(key) or file_state(source), row, *found)

    def _source(self, source: str | Path) -> str:
        return self.name(source) if self.anonymous_names else str(Path(source).absolute())

    def _saved(self, row: Mapping[str, Any]) -> bool:
        """Whether the maps that a row names are still there."""
        names = [row[key] for key in SAVED if row.get(key)]
        return all((self.folder / name).exists() for name in names)


def _network_facts(network: AnomalyDetector) -> list[Any]:
    """All that a network's maps depend on and the tensors of its file do not tell."""
    return [network.facts, backbone_facts(network.backbone), describe_part(network.head)]
