"""A benchmark report to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MARKS = {True: "yes", False: "no", None: ""}


def to_markdown(report: Mapping[str, Any]) -> str:
    """One table of all figures, one of all checks, and the times behind them.

    Args:
        report: what ``bench.json`` holds.
    """
    parts = ["# Benchmark", _machine(report), "## Figures", _figures(report), "## Checks", _checks(report)]
    parts += ["## Times", _times(report), _notes(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    bfloat16 = ", bfloat16 products" if machine["bfloat16"] else ""
    lines = [
        f"- {machine['processor']}, {machine['cores']} cores ({machine['cpu_capability']}{bfloat16}), "
        f"{machine['memory_gb']} GB; {machine.get('accelerator', 'no accelerator')}",
        f"- {machine['system']}; {versions}",
        f"- device {report['device']}, {report['threads']} threads, {report['ranks']} process(es), medians of "
        f"{report['repeats']} interleaved runs after a warm-up",
    ]
    if report["quick"]:
        lines.append("- **quick sizes: a test of the benchmark, not a measurement**")
    return "\n".join(lines)


def _figures(report: Mapping[str, Any]) -> str:
    lines = ["| row | figure | wall clock | processor time | aim | reached |", "|---|---|---|---|---|---|"]
    for row in report["rows"].values():
        if "skipped" in row:
            lines.append(f"| {row['name']} | skipped: {row['skipped']} | | | | |")
        for figure in row.get("figures", ()):
            cpu = "" if figure["cpu"] is None else _number(figure["cpu"], figure["unit"])
            cells = [row["name"], figure["name"], _number(figure["value"], figure["unit"]), cpu, _aim(figure)]
            lines.append(f"| {' | '.join(cells)} | {MARKS[figure['reached']]} |")
    return "\n".join(lines)


def _checks(report: Mapping[str, Any]) -> str:
    lines = ["| row | error of | found | allowed | right |", "|---|---|---|---|---|"]
    for row in report["rows"].values():
        for check in row.get("checks", ()):
            cells = [row["name"], check["name"], f"{check['error']:.2g}", f"{check['bound']:.2g}", MARKS[check["ok"]]]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _times(report: Mapping[str, Any]) -> str:
    lines = ["| row | size | variant | wall, s | processor, s | runs × calls |", "|---|---|---|---|---|---|"]
    for row in report["rows"].values():
        size = ", ".join(f"{name} {value}" for name, value in row.get("size", {}).items())
        for name, timing in row.get("timings", {}).items():
            times = f"{timing['wall_median']:.3g} | {timing['cpu_median']:.3g}"
            lines.append(f"| {row['name']} | {size} | {name} | {times} | {len(timing['wall'])} × {timing['calls']} |")
    return "\n".join(lines)


def _notes(report: Mapping[str, Any]) -> str:
    notes = [f"- {row['name']}: {note}" for row in report["rows"].values() for note in row.get("notes", ())]
    busy = [name for name, row in report["rows"].items() if max(row.get("load_per_core", [0])) > 1.5]
    if busy:
        notes.append(f"- The machine was busy with other work during {', '.join(busy)}: trust the processor time.")
    return "\n".join(notes)


def _number(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}"


def _aim(figure: Mapping[str, Any]) -> str:
    if figure["at_most"] is not None:
        return f"≤ {_number(figure['at_most'], figure['unit'])}"
    return "" if figure["at_least"] is None else f"≥ {_number(figure['at_least'], figure['unit'])}"
