"""``report.html`` of an inference run: the list to sort and filter, and whether the scans are what the model knows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dino_uad.detector import SCAN_RATES, NormalScans, flag_name
from dino_uad.files import as_utf8, atomic_path
from dino_uad.report import as_base64, as_text, charts, panels, template
from dino_uad.wording import plural, visible, were
from dino_uad.worklist.rows import RunStore
from dino_uad.worklist.shift import warnings_of
from dino_uad.worklist.thumbnails import colour_bar

PICTURES = 1000
"""Scans with a thumbnail on the page, those with the highest scores."""
FINDINGS = 50
"""Findings of a scan that the page lists, those with the highest peaks."""
BINS = 40


def write_report(store: RunStore, path: Path, facts: Mapping[str, Any], normal: NormalScans) -> None:
    """Render ``report/worklist.html.j2``; one scan at a time is in memory.

    Args:
        store: the rows.
        path: the page.
        facts: of the run, as in ``scores.json``.
        normal: scores of normal validation scans.
    """
    chart = distribution(store, normal)
    stream = template("worklist.html.j2").stream(
        facts=facts,
        tiles=tiles(store, facts),
        warnings=warnings_of(store, facts, normal) + passed_over(facts) + earlier_runs(facts),
        chart=chart,
        outline="#{:02x}{:02x}{:02x}".format(*panels.PREDICTION_COLOUR),
        bar=colour_bar(facts["map_colours"]),
        rows=(in_script(row) for row in page_rows(store)),
        pictures=thumbnails(store),
        limit=PICTURES,
        run=run_tables(facts),
    )
    stream.enable_buffering(64)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
        stream.dump(file)


def passed_over(facts: Mapping[str, Any]) -> list[str]:
    """A sentence on files that were not taken for images; none where there are none."""
    if not facts["passed_over"]:
        return []
    return [
        f"{were(facts['passed_over'], 'file')} passed over and not scored, most often for a name as annotations have; "
        "the reasons stand at the end of the list"
    ]


def earlier_runs(facts: Mapping[str, Any]) -> list[str]:
    """A sentence on rows of files that are not among this run's; none where there are none."""
    rows = sum(facts[key] - count for key, count in facts["this_run"].items())
    if not rows:
        return []
    return [
        f"{plural(rows, 'row')} of this list: of earlier runs into this folder, of files that are gone or not among "
        "those of the last run; a note in each says so"
    ]


def page_rows(store: RunStore) -> Iterator[dict[str, Any]]:
    """Yield each scan's row for the page's table, with keys of one letter."""
    for row in store.rows():
        scan = row["scan"]
        yield {
            "f": _shown(scan["file"]),
            "s": scan.get("image_score"),
            "p": scan.get("p_value"),
            "g": [scan.get(flag_name(rate)) for rate in SCAN_RATES],
            "n": scan.get("findings"),
            "l": scan.get("largest_size"),
            "u": scan.get("size_unit"),
            "k": scan.get("peak_slice"),
            "r": _shown(scan.get("reason", "")),
            "o": _shown("; ".join(scan.get("notes", []))),
            "d": [
                [
                    one["number"],
                    one["size"],
                    one["unit"],
                    one["diameter"],
                    one["diameter_unit"],
                    one["peak"],
                    one["slice"],
                ]
                for one in row["findings"][:FINDINGS]
            ],
        }


def thumbnails(store: RunStore) -> Iterator[str]:
    """Base64 JPEGs in the order of the rows; empty for a scan without."""
    for number, row in enumerate(store.rows(pictures=True)):
        if number >= PICTURES:
            return
        yield as_base64(row["picture"]) if row["picture"] else ""


def tiles(store: RunStore, facts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Title, number and remark of the tiles."""
    flagged = found = 0
    unknown, rate = False, SCAN_RATES[0]
    for row in store.rows():
        flagged += row["scan"].get(flag_name(rate)) is True
        unknown |= row["scan"]["status"] == "scored" and row["scan"].get(flag_name(rate)) is None
        found += bool(row["scan"].get("findings"))
    return [
        ("Scans scored", f"{facts['scored']:,}", f"{facts['failed']:,} could not be scored"),
        ("With findings", f"{found:,}", "at the chosen operating point"),
        (
            f"Flagged at {100 * rate:g} %",
            "–" if unknown else f"{flagged:,}",
            "too few normal scans to say" if unknown else f"at most {most(facts['scored'])} expected if all are normal",
        ),
    ]


def most(scored: int) -> str:
    """5 % of so many scans, rounded up: a bound, as a finite calibration set allows no more than that, often less."""
    tenths = -(-scored // 2)
    return f"{tenths / 10:g}" if tenths < 100 else f"{-(-scored // 20):,}"


def distribution(store: RunStore, normal: NormalScans) -> bytes | None:
    """A chart of the image scores beside those of normal validation scans; None without either."""
    volume = next((row["scan"].get("slices", 1) > 1 for row in store.rows() if row["scan"]["status"] == "scored"), None)
    if volume is None:
        return None
    levels, masses = (normal.scans if volume else normal.images).masses()
    low, high = store.score_range()
    if low is None:
        return None
    low, high = min([low, *levels.tolist()]), max([high, *levels.tolist()])
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    new = np.zeros(BINS)
    for score in store.scores():
        new[min(int(np.searchsorted(edges, score, side="right")) - 1, BINS - 1)] += 1
    known, _ = np.histogram(levels.numpy(), edges, weights=masses.numpy())
    unit = "scan" if volume else "image"
    # Of pictures, too, each group weighs 1, shared out over its images: the sum is one of groups.
    counts = plural(round(float(known.sum())), "group"), plural(int(new.sum()), unit)
    return charts.histogram(edges, known, new, {}, f"{unit}s", False, ("normal validation", "new"), counts)


def run_tables(facts: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Settings, versions and time as titled tables."""
    options = {
        name: value[0] if isinstance(value, list) and value else value for name, value in facts["options"].items()
    }
    return {
        "Model": {key: as_text(value) for key, value in facts["model"].items()},
        "Options": {key: as_text(value) for key, value in options.items()},
        "Settings": {key: as_text(value) for key, value in facts["settings"].items()},
        "Thresholds": {
            key: "not calibrated" if value is None else f"{value:.5g}" for key, value in facts["thresholds"].items()
        },
        "This run": {
            "started": facts["started"],
            "seconds": f"{facts['seconds']:.1f}",
            "peak memory, MB": f"{facts['peak_memory_mb']:,.0f}",
            "device": facts["device"],
        },
        "Versions": facts["versions"],
    }


def in_script(value: Any) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _shown(text: str) -> str:
    return visible(as_utf8(text))
