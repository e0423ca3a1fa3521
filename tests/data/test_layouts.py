"""What is made of the layouts that people have: the table of the documentation."""

from pathlib import Path

import layouts
import pytest
from understood_cases import SPLITS, facts, understood

from dino_uad.data.case import Options
from dino_uad.data.cases import list_images


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_every_layout_is_understood(tmp_path, name):
    layout = layouts.LAYOUTS[name]
    cases = understood(tmp_path, *layout.files, **dict(layout.options))
    assert facts(cases) == (layout.images, layout.masks, layout.patients)
    assert all(not case.anomalous or case.labels for case in cases) or not layout.masks
    for one in SPLITS:  # no patient lies in two splits
        for other in SPLITS[: SPLITS.index(one)]:
            groups = [{case.group for case in cases if case.split == split} for split in (one, other)]
            assert not groups[0] & groups[1]


def test_the_docs_show_the_table():
    page = Path(__file__).parents[2] / "common" / "docs" / "data_layouts.md"
    shown = page.read_text(encoding="utf-8").splitlines()
    assert [row for row in layouts.table() if row not in shown] == []


@pytest.mark.parametrize("name", layouts.REFUSED)
def test_a_layout_that_leaves_a_choice_asks(tmp_path, name):
    with pytest.raises(ValueError, match=f"(?s){layouts.REFUSED[name]}"):
        understood(tmp_path, *layouts.LAYOUTS[name].files)


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_inference_takes_every_image_and_no_mask(tmp_path, name):
    layout = layouts.LAYOUTS[name]
    images = list_images(layouts.write(tmp_path, layout.files), Options()).cases
    found = {case.image.relative for case in images}
    assert not [path for path in found if "mask" in path or "seg" in path or "label" in path or "GT" in path]
    assert len(found) >= sum(layout.images)
