"""The page of a run: every scan on it, nothing loaded from elsewhere, sorted and filtered in a real browser."""

import html
import io
import json
import re
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from browser import dom, needs_browser
from dino_uad.detector import NormalScans
from dino_uad.worklist import RunStore, thumbnail
from dino_uad.worklist.report import write_report
from dino_uad.worklist.shift import warnings_of

EVIL = "</script><b onload=alert(1)>&.png"
COUNT = 1000


class Rows:
    """Of a run, without a file."""

    def __init__(self, p_values):
        self.p_values = p_values

    def rows(self):
        return ({"scan": {"status": "scored", "p_value": float(p)}} for p in self.p_values)


@pytest.mark.parametrize("groups", [1, 4, 8, 9, 40])
def test_that_a_shift_cannot_be_seen_is_said(groups) -> None:
    fitted = normal(groups)
    p_values = fitted.scans.p_values(torch.full((30,), 10.0))  # far above all normal ones
    lines = warnings_of(Rows(p_values.tolist()), {"failed": 0, "calibration": []}, fitted)
    assert any("score higher than 90%" in line for line in lines) == (groups >= 9)
    (said,) = [line for line in lines if "was not looked at" in line] or [None]
    assert (said is None) == (groups >= 9)
    assert said is None or (f"with {groups} groups" in said and "9 groups are needed" in said)
    assert any("not compared" in line and "10 patients" in line for line in lines), "no scan was seen"


def normal(count: int = 40) -> NormalScans:
    fitted = NormalScans()
    fitted.fit(torch.linspace(0, 1, count), list(range(count)), torch.rand(count, 4, 4))
    return fitted


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    store, picture = RunStore(folder, "run"), thumbnail(torch.rand(1, 40, 60), torch.rand(1, 40, 60), 0.5, (0.9, 0.9))
    finding = {"number": 1, "size": 1.25, "unit": "ml", "diameter": 9.5, "diameter_unit": "mm", "peak": 4.0, "slice": 7}
    for i in range(COUNT):
        some = i % 4 == 0
        row = {
            "file": f"case{i:04d}.nii.gz",
            "status": "scored",
            "image_score": i / COUNT,
            "p_value": 0.05 + 0.9 * (COUNT - i) / COUNT,
        }
        row |= {"flagged_5": i >= 990, "flagged_1": None, "findings": int(some), "slices": 20}
        if some:
            row |= {"largest_size": 1.25 + i, "size_unit": "ml", "peak_slice": 7}
        store.add(f"/{i}", "state", row, [], [finding] if some else [], picture)
    store.add("/evil", "state", {"file": EVIL, "status": "failed", "findings": None, "reason": "cannot <be> read"})
    facts = {
        "model": {"method": "DPMMHead", "arch": "dino_uad_tiny14", "image_size": [56, 56]},
        "options": {"min_size": "0"},
        "settings": {},
        "thresholds": {"5 %": 1.0, "1 %": None},
        "calibration": normal().promises(),
        "started": "now",
        "seconds": 1.0,
        "peak_memory_mb": 1.0,
        "device": "CPU",
        "versions": {"torch": "2"},
        "scored": COUNT,
        "failed": 1,
        "passed_over": 0,
        "this_run": {"scored": COUNT, "failed": 1, "passed_over": 0},
    }
    write_report(store, folder / "report.html", facts, normal())
    return folder / "report.html"


def test_every_scan_is_on_the_page_and_names_are_no_code(page) -> None:
    text = page.read_text()
    rows = json.loads(re.search(r'id="rows">(.*?)</script>', text, re.DOTALL)[1])
    assert len(rows) == COUNT + 1 and rows[0]["f"] == "case0999.nii.gz" and rows[-1]["f"] == EVIL
    assert [row["s"] for row in rows[:-1]] == sorted((row["s"] for row in rows[:-1]), reverse=True)
    assert EVIL not in text and "<be>" not in text
    assert text.count('type="text/plain"') == COUNT
    assert not re.findall(r"""(?:src|href|url\()\s*=?\s*["']?(?:https?:)?//""", text)
    assert "cannot promise 1%" in text and "1 file could not be scored" in text


def test_most_scans_high_is_said_first(page, tmp_path) -> None:
    store = RunStore(tmp_path, "run")
    for i in range(10):
        row = {"file": str(i), "status": "scored", "image_score": 1.0, "p_value": 0.02 if i < 6 else 0.5}
        store.add(str(i), "", row | {"unlike": ["spacing"] if i < 3 else []})
    facts = {"failed": 0, "calibration": []}
    fitted = normal()
    fitted.seen.fit(torch.rand(20, 4), [None] * 20)
    first, second = warnings_of(store, facts, fitted)
    assert first.startswith("6 of 10 scans score higher than 90%") and second.startswith("3 of 10 scans: spacing")
    for i in ("0", "1"):
        store.add(i, "", {"file": i, "status": "failed", "reason": "gone"})
    assert not any("score higher" in line for line in warnings_of(store, facts, fitted))


@pytest.mark.parametrize(("slices", "calibrated", "said"), [(24, "pictures", "volumes"), (1, "volumes", "pictures")])
def test_scans_of_another_kind_than_the_calibration_images_are_said_first(tmp_path, slices, calibrated, said) -> None:
    store, fitted, facts = RunStore(tmp_path, "run"), normal(), {"failed": 0, "calibration": []}
    for i in range(3):
        row = {"file": str(i), "status": "scored", "image_score": 1.0, "p_value": 0.02, "slices": slices}
        store.add(str(i), "", row)
    assert not any("the model was calibrated on" in line for line in warnings_of(store, facts, fitted)), "unknown"
    spacing = torch.nan if calibrated == "pictures" else 5.0
    fitted.seen.fit(torch.tensor([[1.0, spacing, 0.3, 0.1]]), [None])
    first = warnings_of(store, facts, fitted)[0]
    assert first.startswith(f"3 of 3 scans are {said}, and the model was calibrated on {calibrated}: ")
    assert first.endswith(f"Calibrate on normal {said}: python -m dino_uad calibrate")
    fitted.seen.fit(torch.tensor([[1.0, 5.0, 0.3, 0.1], [1.0, torch.nan, 0.3, 0.1]]), [None] * 2)
    assert not any("the model was calibrated on" in line for line in warnings_of(store, facts, fitted)), "both"


def test_a_thumbnail_keeps_the_proportions_of_the_body() -> None:
    volume = MetaTensor(torch.rand(1, 56, 56, 3), affine=torch.diag(torch.tensor([2.0, 1, 5, 1])))
    with Image.open(io.BytesIO(thumbnail(volume, volume * 0 + 1, 0.5))) as picture:
        assert picture.size == (2 * 72 + 4, 144)  # each row is twice as high as it is wide


@needs_browser
def test_a_browser_sorts_and_filters_a_thousand_scans_in_a_moment(page, tmp_path) -> None:
    script = """<script>
    const get = id => document.getElementById(id), body = '#list tbody tr .file';
    const names = () => [...document.querySelectorAll(body)].map(cell => cell.firstChild.textContent);
    const choose = (id, value) => { get(id).value = value; get(id).dispatchEvent(new Event('input')); };
    const said = {first: names()};
    document.querySelector('[data-key=l] button').click(); said.largest = names();
    choose('filter', 'flagged'); said.flagged = get('count').textContent;
    choose('filter', 'failed'); said.failed = names();
    choose('filter', 'all'); choose('search', 'case01');
    get('next').click(); said.page = get('page').textContent;
    said.wide = document.documentElement.scrollWidth - innerWidth;
    said.milliseconds = performance.now();
    document.body.replaceChildren(Object.assign(document.createElement('pre'), {textContent: JSON.stringify(said)}));
    </script>"""
    copy = tmp_path / "page.html"
    copy.write_text(page.read_text().replace("</body>", script + "</body>"))
    shown = dom(copy, tmp_path, width=390)
    said = json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", shown, re.DOTALL)[1]))
    assert said["first"][0] == "case0999.nii.gz" and len(said["first"]) == 25
    assert said["largest"][0] == "case0996.nii.gz" and said["flagged"] == "10 of 1,001 scans"
    assert said["failed"] == [EVIL] and said["page"] == "Page 2 of 4" and said["wide"] <= 0
