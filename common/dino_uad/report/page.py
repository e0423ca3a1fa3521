"""From sections to one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dino_uad.files import as_utf8, atomic_path, remove_leftovers
from dino_uad.report.sections import MetricRow, Section

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True)
class Page:
    """Everything the template shows.

    Attributes:
        title: heading of the page.
        subtitle: what was evaluated, in one line.
        headlines: the metrics on the tiles.
        metrics: those that have a value, under what they count (pixels, images, lesions).
        unknown_note: which are not, and why; empty where all are.
        interval_note: how the intervals were made; empty without intervals.
        sections: in reading order, the data set first.
        run: settings, versions, time and memory, as titled tables.
        overview: a PNG for those who want one picture; not on the page, which shows the cases in detail.
        command: the command line; empty to leave it out.
    """

    title: str
    subtitle: str
    headlines: Sequence[MetricRow]
    metrics: Mapping[str, Sequence[MetricRow]]
    unknown_note: str
    interval_note: str
    sections: Sequence[Section]
    run: Mapping[str, Mapping[str, Any]]
    overview: bytes
    command: str = ""


def template(name: str) -> Template:
    """A template of this folder, with the filter ``base64`` of bytes and the variable ``now``, the time as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dino_uad", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["base64"] = as_base64
    environment.globals["now"] = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return environment.get_template(name)


def as_base64(content: bytes) -> str:
    """Bytes, such as a picture's, as text that stands in a page."""
    return base64.b64encode(content).decode()


def as_text(value: Any) -> str:
    """A setting or a fact as the page shows it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def write_page(page: Page, path: Path) -> None:
    """Render ``template.html.j2`` to ``path``, every picture inside it."""
    html = template("template.html.j2").render(page=page)
    with atomic_path(path) as temporary:
        temporary.write_text(as_utf8(html), encoding="utf-8")


def write_figures(page: Page, folder: Path) -> None:
    """Write the overview and the pictures that have a file name to ``folder``, without what killed runs left there."""
    remove_leftovers(folder)
    galleries = (gallery for section in page.sections for gallery in section.galleries)
    files = {picture.file: picture.png for gallery in galleries for picture in gallery.pictures if picture.file}
    for name, content in (files | {"overview.png": page.overview}).items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
