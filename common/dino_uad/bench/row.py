"""One row of the benchmark: sizes, times, ratios, memory, and the checks that the timed code is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dino_uad.bench.settings import Settings
from dino_uad.bench.timing import Timing, interleave
from dino_uad.measure import Call, peak_extra_megabytes


@dataclass(frozen=True)
class Figure:
    """A number to read, with what it should reach.

    Attributes:
        value: by wall clock where it is a ratio of times.
        cpu: the same ratio by processor time, which a busy machine disturbs less.
        at_most, at_least: the aim, if there is one.
    """

    name: str
    value: float
    unit: str = "×"
    cpu: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the aim was met; None without an aim."""
        if self.at_most is None and self.at_least is None:
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )


@dataclass(frozen=True)
class Check:
    """An error of the timed code against a plain computation, and what it may be."""

    name: str
    error: float
    bound: float

    @property
    def ok(self) -> bool:
        return self.error <= self.bound


@dataclass
class Row:
    """Result of one row: timings, memory, figures, checks and notes, filled in as it runs."""

    name: str
    title: str
    size: dict[str, Any]
    settings: Settings
    ranks: int = 1
    timings: dict[str, Timing] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def time(self, variants: Mapping[str, Call]) -> None:
        """Time variants against each other."""
        self.timings.update(interleave(variants, self.settings))

    def ratio(
        self,
        name: str,
        of: str,
        to: str,
        scale: float = 1.0,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """Add the ratio of the median times of two variants, times ``scale``."""
        of, to = self.timings[of], self.timings[to]
        wall, cpu = scale * of.wall_median / to.wall_median, scale * of.cpu_median / max(to.cpu_median, 1e-9)
        self.figures.append(Figure(name, wall, "%" if scale == 100 else "×", cpu, at_most, at_least))

    def figure(
        self, name: str, value: float, unit: str, at_most: float | None = None, at_least: float | None = None
    ) -> None:
        """Add any other number."""
        self.figures.append(Figure(name, value, unit, None, at_most, at_least))

    def memory(self, variant: str, call: Call, at_most: float | None = None) -> None:
        """Add the peak extra memory of one more, untimed call."""
        self.figure(f"peak extra memory, {variant}", peak_extra_megabytes(call, self.settings.device), "MB", at_most)

    def check(self, name: str, error: float, bound: float) -> None:
        """Record how far the timed code is from a plain computation."""
        self.checks.append(Check(name, float(error), bound))

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON types."""
        return {
            "name": self.name,
            "title": self.title,
            "size": self.size,
            "quick": self.settings.quick,
            "device": str(self.settings.device),
            "threads": self.settings.threads,
            "ranks": self.ranks,
            "timings": {
                name: {"wall_median": t.wall_median, "cpu_median": t.cpu_median, **asdict(t)}
                for name, t in self.timings.items()
            },
            "figures": [{**asdict(figure), "reached": self._reached(figure)} for figure in self.figures],
            "checks": [{**asdict(check), "ok": check.ok} for check in self.checks],
            "notes": self.notes,
        }

    def _reached(self, figure: Figure) -> bool | None:
        return None if self.settings.quick else figure.reached
