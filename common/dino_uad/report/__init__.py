"""Figures and pages of an evaluation."""

from dino_uad.report import charts, panels
from dino_uad.report.build import build_page
from dino_uad.report.collect import Collector
from dino_uad.report.overview import overview_figure
from dino_uad.report.page import as_base64, as_text, template, write_figures, write_page
from dino_uad.report.training import TrainingPictures

__all__ = [
    "Collector",
    "TrainingPictures",
    "as_base64",
    "as_text",
    "build_page",
    "charts",
    "overview_figure",
    "panels",
    "template",
    "write_figures",
    "write_page",
]
