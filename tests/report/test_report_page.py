"""The page as a whole: its numbers, its independence, its privacy, and how it looks in a browser."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image

from browser import needs_browser, pdf, picture
from dino_uad.files import HOST, PART
from dino_uad.handlers.report_handler import ReportHandler
from dino_uad.metrics import select
from dino_uad.metrics.aupro import AUPRO
from dino_uad.metrics.dice import DiceAtThresholds
from dino_uad.metrics.froc import FROC
from dino_uad.metrics.image_curves import ImageCurves
from dino_uad.metrics.image_intervals import ImageIntervals
from dino_uad.metrics.label_maps import LabelMaps
from dino_uad.metrics.pixel_curves import PixelCurves
from dino_uad.metrics.pixel_intervals import PixelIntervals
from dino_uad.report.metric_rows import OTHERS
from helpers import SIZE, detector

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """Checks that tags are closed in order, and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.cells: dict[str, str] = {}
        self._cell: str | None = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        attributes = dict(attrs)
        for kind in ("metric", "interval"):
            if f"data-{kind}" in attributes:
                self._cell = f"{kind} {attributes[f'data-{kind}']}"
                self.cells[self._cell] = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self._cell = None

    def handle_data(self, data):
        if self._cell:
            self.cells[self._cell] += data


def items(anomalous: bool, slices: int = 1, has_mask: bool = True, seed: int = 0) -> list[dict]:
    """Outputs of an evaluator for one picture or one volume, with a square that scores higher."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for k in range(slices):
        label = torch.zeros(1, 60, 80, dtype=torch.uint8)
        if anomalous and has_mask:
            label[0, 20:35, 30:55] = 1
        pred = torch.rand(1, 60, 80, generator=generator) + 0.6 * label
        image = torch.rand(1, *SIZE, generator=generator)
        result.append(
            {"image": image, "label": label, "mask": label > 0, "pred": pred, "has_mask": has_mask}
            | {"patch_scores": torch.rand(1, 4, 4, generator=generator), "image_score": pred.max(), "seconds": 0.01}
            | {"name": f"secret_{seed}.png", "group": f"secret_{seed}", "spacing": (1.0, 1.0, 4.0)}
            | {"scan": 0, "slice_index": k, "slice_number": k + 1}
        )
    return result


def evaluate(folder, batches, **kwargs) -> tuple[str, dict[str, float]]:
    """Run the handler on an engine that yields ``batches``; the page and the metrics."""
    network = detector()
    network.head.fit_batch(torch.randn(2, network.head.embed_dim, 4, 4))
    network.pixel_thresholds.copy_(torch.tensor([0.9, 0.95, 0.99, 0.995, 0.999]))
    network.thresholds.copy_(network.pixel_thresholds + 0.3)  # of the foreground, as label maps use them
    engine = Engine(lambda engine, batch: batch)
    engine.state.device = torch.device("cpu")
    PixelCurves(select.pixels).attach(engine, "pixel")
    AUPRO(select.pixels).attach(engine, "pixel_aupro")
    PixelIntervals(lambda: network.pixel_thresholds, select.grouped_pixels, replicates=50).attach(
        engine, "pixel_interval"
    )
    DiceAtThresholds(lambda: network.pixel_thresholds, select.pixels).attach(engine, "dice")
    ImageCurves(select.images).attach(engine, "image")
    FROC(0.9, select.scans).attach(engine, "froc")
    LabelMaps(0.9, lambda: network.thresholds, output_transform=select.scans).attach(engine, "label_maps")
    ImageIntervals(select.grouped_images, replicates=50).attach(engine, "image_interval")
    ReportHandler(str(folder), network, settings={"seed": 7}, **kwargs).attach(engine)
    engine.run(batches)
    return (folder / "report.html").read_text(), engine.state.metrics


def batches() -> list[list[dict]]:
    pictures = [items(anomalous=i % 3 == 0, seed=i) for i in range(9)]
    return [*pictures, items(anomalous=True, slices=5, seed=20), items(anomalous=False, slices=4, seed=21)]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "figures").mkdir()
    (folder / "figures" / f".{HOST}01234567{PART}overview.png").write_bytes(b"half, of a killed run")
    return folder, *evaluate(folder, batches())


def test_every_number_is_the_metric(evaluated):
    _, html, metrics = evaluated
    cells = Reader(html).cells
    scalars = {name: value for name, value in metrics.items() if np.isscalar(value)}
    bounds = {name for name in scalars if name.endswith(("_low", "_high"))}
    assert {name.removeprefix("metric ") for name in cells if name.startswith("metric ")} == set(scalars) - bounds
    for name in set(scalars) - bounds:
        assert cells[f"metric {name}"] == f"{scalars[name]:.4f}"
    for name in set(scalars) - bounds:
        bounded = f"{name}_low" in metrics
        assert bounded == name.startswith(("pixel_", "image_")), name
        interval = f"{metrics[name + '_low']:.4f} – {metrics[name + '_high']:.4f}" if bounded else ""
        assert cells[f"interval {name}"] == interval


def test_a_case_is_measured_at_the_threshold_of_the_metrics(tmp_path):
    html, metrics = evaluate(tmp_path, [items(anomalous=True), items(anomalous=False, seed=1)])
    (dice,) = re.findall(r"Dice <b>([0-9.]+)</b>", html)
    assert float(dice) == pytest.approx(metrics["pixel_dice_fpr5_per_image"], rel=5e-3)


def test_no_metric_of_the_bundles_stands_there_under_its_bare_name(evaluated):
    _, html, metrics = evaluated
    assert {"froc", "lesion_sensitivity_at_0.25", "label_dice_grow0.5"} <= set(metrics)
    assert [name for name in metrics if f">{name}</th>" in html] == []
    assert f">{OTHERS}</th>" not in html


def test_the_page_needs_nothing_but_itself(evaluated):
    _, html, _ = evaluated
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[A-Za-z0-9+/=]+", "", html))
    for tag, attributes in Reader(html).tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")


def test_the_page_is_well_formed_and_accessible(evaluated):
    _, html, _ = evaluated
    tags = Reader(html).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for tag, a in tags if tag == "a"} == set(ids)
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    assert html.startswith("<!DOCTYPE html>")


def test_figures_lie_beside_the_page(evaluated):
    folder, _, _ = evaluated
    names = {path.name for path in (folder / "figures").iterdir()}
    curves = {f"{level}_{kind}.png" for level in ("pixel", "image") for kind in ("roc", "pr", "scores")}
    assert names == {"overview.png", "pixel_dice.png", *curves}
    for name in names:
        with Image.open(folder / "figures" / name) as picture:
            picture.verify()


def test_the_page_tells_counts_volumes_and_the_run(evaluated):
    _, html, _ = evaluated
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    assert "images 18" in text
    assert "anomalous 8 (8 with annotation)" in text
    assert "volumes 2" in text
    assert "sagittal" in text
    assert "seed 7" in text
    assert "secret_3.png" in text


def test_anonymous_names_keep_files_patients_and_settings_out(tmp_path):
    html, _ = evaluate(tmp_path, batches(), anonymous_names=True)
    assert "secret" not in html
    assert "image 1" in html
    assert "Command" not in html


def test_one_class_and_missing_masks_are_said_not_made_up(tmp_path):
    only_normal = [items(anomalous=False, seed=i) for i in range(3)]
    with pytest.warns(UserWarning, match="undefined"):
        html, _ = evaluate(tmp_path / "normal", only_normal)
    assert "metric pixel_auroc" not in Reader(html).cells and "Left out, because no" in html
    unmasked = [items(anomalous=True, has_mask=False, seed=i) for i in range(2)]
    with pytest.warns(UserWarning, match="undefined"):
        html, metrics = evaluate(tmp_path / "unmasked", only_normal + unmasked)
    cells = Reader(html).cells
    assert "metric pixel_auroc" not in cells
    assert cells["metric image_auroc"] == f"{metrics['image_auroc']:.4f}"
    assert "ranked by image score" in html


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_browser_shows_the_page_without_sideways_scrolling(evaluated, tmp_path, width):
    folder, _, _ = evaluated
    with Image.open(picture(folder / "report.html", tmp_path / "page.png", width)) as shot:
        shown = np.asarray(shot.convert("L"))[:, :width]
    assert (shown < 128).mean() > 0.01
    # Whatever is wider than the page would reach into the margins.
    assert (shown[:, :10] == 255).all()
    assert (shown[:, -10:] == 255).all()


@needs_browser
def test_browser_prints_the_page_without_wasting_paper(evaluated, tmp_path):
    folder, _, _ = evaluated
    printed = pdf(folder / "report.html", tmp_path / "page.pdf").read_bytes()
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    # Two pages of numbers and charts, seven cases in threes, three volumes, the method, the run.
    assert 5 <= pages <= 10
