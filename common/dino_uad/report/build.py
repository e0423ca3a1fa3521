"""Puts the page of one evaluation together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine

from dino_uad.detector import AnomalyDetector
from dino_uad.report import overview, results
from dino_uad.report.collect import Collector
from dino_uad.report.methods import MethodContext, method_section
from dino_uad.report.metric_rows import HEADLINES, interval_note, metric_rows, why_unknown
from dino_uad.report.page import Page
from dino_uad.report.training import TrainingPictures


def build_page(
    collector: Collector,
    engine: Engine,
    network: AnomalyDetector,
    run: Mapping[str, Mapping[str, Any]],
    training: TrainingPictures | None,
    command: str,
) -> Page:
    """Draw everything that the evaluator ``engine`` has measured and ``collector`` has kept."""
    metrics = engine.state.metrics
    thresholds = results.threshold_names(network.pixel_thresholds)
    scale = results.colour_scale(collector, thresholds)
    shown = results.shown_cases(collector)
    context = MethodContext(network, engine.state.device, shown, collector.position_mean(), training)
    axcodes = str(network.facts["preprocessing"].get("axcodes", "PLS"))
    sections = [
        results.data_section(collector),
        results.curve_section(collector, metrics, thresholds),
        results.case_section(collector, scale, thresholds),
        results.volume_section(collector, scale, axcodes),
        method_section(network.head, context),
    ]
    rows, unknown = metric_rows(metrics)
    known = [row for group in rows.values() for row in group]
    headlines = [row for name in HEADLINES for row in known if row.name == name]
    groups = len({row.group for row in collector.rows})
    return Page(
        title=f"Anomaly detection: {network.head.method}",
        subtitle=f"{len(collector.rows):,} test images, {network.facts['arch']} at "
        f"{network.image_size[0]} × {network.image_size[1]} px",
        headlines=headlines,
        metrics=rows,
        unknown_note=why_unknown(unknown, collector),
        interval_note=interval_note(groups, any(row.low is not None for row in known)),
        sections=[section for section in sections if section is not None],
        run=run,
        command=command,
        overview=overview.cases_figure(shown, scale),
    )
