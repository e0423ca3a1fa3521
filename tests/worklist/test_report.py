"""The page of a run: every scan on it, nothing loaded from elsewhere, sorted and filtered in a real browser."""

import html
import json
import re
from pathlib import Path

import pytest
import torch

from browser import dom, needs_browser
from dino_uad.detector import NormalScans
from dino_uad.report import charts
from dino_uad.worklist import Glance, RunStore, thumbnail
from dino_uad.worklist.report import distribution, passed_over, tiles, write_report
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
    assert said is None or (
        f"with {groups} group{'s' if groups > 1 else ''} of" in said and "9 groups are needed" in said
    )
    assert any("not compared" in line and "10 patients" in line for line in lines), "no scan was seen"


def normal(count: int = 40) -> NormalScans:
    fitted = NormalScans()
    fitted.fit(torch.linspace(0, 1, count), list(range(count)), torch.rand(count, 4, 4), list(range(count)))
    return fitted


def facts(scored: int, failed: int = 0, passed: int = 0) -> dict:
    return {
        "model": {"method": "DPMMHead", "arch": "dino_uad_tiny14", "image_size": [56, 56], "units": True},
        "options": {"min_size": "0"},
        "settings": {},
        "thresholds": {"5 %": 1.0, "1 %": None},
        "map_colours": [1.0, 4.5],
        "calibration": normal().promises(),
        "started": "now",
        "seconds": 1.0,
        "peak_memory_mb": 1.0,
        "device": "CPU",
        "versions": {"torch": "2"},
        "scored": scored,
        "failed": failed,
        "passed_over": passed,
        "this_run": {"scored": scored, "failed": failed, "passed_over": passed},
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    image, one = torch.rand(1, 40, 60), torch.rand(40, 60).numpy() > 0.9
    store, picture = RunStore(folder, "run"), thumbnail(image, Glance.of(image, image), (0.5, 1.3), 0, one)
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
    write_report(store, folder / "report.html", facts(COUNT, 1), normal())
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


UNSEEN = "a\nb\u202egnp.exe"


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    """A page of two scans, one of them with many large findings and a name that cannot be seen."""
    folder = tmp_path_factory.mktemp("few")
    store = RunStore(folder, "run")
    finding = {"unit": "px", "diameter": 4734.4, "diameter_unit": "px", "slice": None}
    sizes = [10_000, 4731, 999.6, 98.76, 1.5, 0.0123456]
    found = [finding | {"number": n + 1, "size": sizes[n % 6], "peak": 5 - n / 100} for n in range(1053)]
    row = {"file": UNSEEN, "status": "scored", "image_score": 3.0, "p_value": 1e-7, "flagged_5": True}
    row |= {"findings": len(found), "largest_size": 123456.0, "size_unit": "px", "notes": [f"{UNSEEN}: odd"]}
    store.add("/a", "state", row | {"flagged_1": None}, [], found)
    row = {"file": "b" + UNSEEN, "status": "failed", "findings": None, "reason": f"{UNSEEN}: no\nfile"}
    store.add("/b", "state", row)
    write_report(store, folder / "report.html", facts(1, 1), normal())
    return folder / "report.html"


def test_no_name_on_the_page_breaks_a_line_or_turns_the_writing(few) -> None:
    text = few.read_text(encoding="utf-8")
    rows = json.loads(re.search(r'id="rows">(.*?)</script>', text, re.DOTALL)[1])
    shown = [rows[0]["f"], rows[0]["o"], rows[1]["f"], rows[1]["r"]]
    assert all(r"a\nb\u202egnp.exe" in one and one.isprintable() for one in shown)


def test_without_scripts_the_page_says_where_the_list_is(few) -> None:
    text = few.read_text(encoding="utf-8")
    said = re.search(r"<noscript>(.*?)</noscript>", text, re.DOTALL)[1]
    assert "This list needs JavaScript" in said and "scores.csv" in said and ".scripted { display: none" in said
    for one in ('<form class="controls scripted"', '<table id="list" class="scripted"', '<nav class="scripted"'):
        assert one in text


def test_the_page_says_what_its_colours_and_scores_mean(few, tmp_path) -> None:
    text = few.read_text(encoding="utf-8")
    assert "outline: what the label map marks" in text and "map: score 1 <img" in text and "> 4.5, not coloured" in text
    assert "2 means that one in a hundred patches of normal validation images scores higher" in text
    own = facts(0) | {"model": facts(0)["model"] | {"units": False}}
    write_report(RunStore(tmp_path, "run"), tmp_path / "own.html", own, normal())
    own = (tmp_path / "own.html").read_text(encoding="utf-8")
    assert "one in a hundred" not in own and "in the method's own unit" in own


@needs_browser
def test_a_browser_lists_findings_and_writes_numbers_out_and_knows_the_table(few, tmp_path) -> None:
    shown = dom(few, tmp_path, width=390)
    table = re.search(r"<table.*?</table>", shown, re.DOTALL)[0]
    items = re.findall(r"<li>(.*?)</li>", table)
    assert len(items) == 50 and items[0] == "10,000 px, 4,734 px long, peak 5"
    assert [item.split(" px")[0] for item in items[:6]] == ["10,000", "4,731", "1,000", "98.8", "1.5", "0.0123"]
    assert "and 1,003 of lower peaks: findings.csv" in table and "123,456 px" in table and "0.0000001 " in table
    assert not re.search(r"\de[+-]\d", re.sub("<[^>]*>", " ", table))
    tags = re.findall(r"<(table|thead|tbody|tr|th|td)\b([^>]*)>", table)
    roles = {
        "table": "table",
        "thead": "rowgroup",
        "tbody": "rowgroup",
        "tr": "row",
        "th": "columnheader",
        "td": "cell",
    }
    assert {name for name, _ in tags} == set(roles)  # "display: grid" takes a table's own meaning away
    assert all(f'role="{roles[name]}"' in rest for name, rest in tags)
    assert 'aria-labelledby="scans"' in tags[0][1] and '<h2 id="scans">' in shown


@pytest.mark.parametrize(("scored", "said"), [(1, "0.1"), (14, "0.7"), (20, "1"), (198, "9.9"), (3001, "151")])
def test_what_is_expected_of_normal_scans_is_a_bound(scored, said) -> None:
    """5 % of 3001 scans are 150.05."""
    remark = tiles(Rows([0.5]), facts(scored))[2][2]
    assert remark == "too few normal scans to say"
    flagged = [{"scan": {"status": "scored", "flagged_5": False}, "findings": []}]
    remark = tiles(type("Rows", (), {"rows": lambda _: flagged})(), facts(scored))[2][2]
    assert remark == f"at most {said} expected if all are normal"


def test_one_file_is_no_plural() -> None:
    assert passed_over(facts(1, passed=1))[0].startswith("1 file was passed over and not scored")
    assert passed_over(facts(1, passed=2000))[0].startswith("2,000 files were passed over and not scored")


def test_normal_images_are_counted_by_patient_in_the_chart(tmp_path, monkeypatch) -> None:
    fitted, drawn = NormalScans(), []
    patients = [i // 3 for i in range(12)]
    fitted.fit(torch.linspace(0, 1, 12), patients, torch.rand(12, 4, 4), patients)
    monkeypatch.setattr(charts, "histogram", lambda *given: drawn.append(given) or b"")
    for slices, totals in ((1, ("4 groups", "1 image")), (9, ("4 groups", "1 scan"))):
        store = RunStore(tmp_path / str(slices), "run")
        store.add("/a", "state", {"file": "a", "status": "scored", "image_score": 0.5, "slices": slices})
        distribution(store, fitted)
        assert drawn[-1][-1] == totals and drawn[-1][1].sum() == pytest.approx(4)


def test_only_the_chosen_operating_point_is_spoken_of() -> None:
    fitted = normal(2)  # promise one in three at best
    assert sum("have a finding" in line for line in fitted.promises()) == 2
    for point in ("1 finding in 10 scans", "1 in 4 normal scans"):
        (line,) = [line for line in fitted.promises([point]) if "have a finding" in line]
        assert point in line
    assert not any("have a finding" in line for line in fitted.promises([0.05]))
    assert fitted.promises([None]) == fitted.promises()[:2]
