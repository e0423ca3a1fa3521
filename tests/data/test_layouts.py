"""What is made of the layouts that people have: the table of the documentation."""

from pathlib import Path

import layouts
import pytest
from understood_cases import SPLITS, facts, understood

from dino_uad.data.case import Options
from dino_uad.data.cases import list_images, understand


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


@pytest.mark.parametrize(
    "names",
    [
        ("sub-{0}/anat/sub-{0}_T1w.nii.gz", "sub-{0}/dwi/sub-{0}_dwi.nii.gz"),
        ("sub-{0}/anat/sub-{0}_T1w.nii.gz", "sub-{0}/func/sub-{0}_task-rest_bold.nii.gz"),
        ("sub-{0}/pet/sub-{0}_pet.nii.gz", "sub-{0}/anat/sub-{0}_T1w.nii.gz"),
        ("p{}_part-mag_bold.nii.gz", "p{}_part-phase_bold.nii.gz"),
        ("T1/p{}.nii.gz", "FLAIR/p{}.nii.gz"),
    ],
)
def test_sequences_of_one_case_in_several_folders_are_asked_for(tmp_path, names):
    layouts.write(tmp_path, [name.format(k) for name in names for k in range(1, 6)])
    with pytest.raises(ValueError, match=r"two images of one name: .*pattern"):
        understand(tmp_path, Options())
    assert len(understand(tmp_path, Options(pattern=names[0].format("*"))).cases) == 5


def test_equal_names_at_several_sites_are_several_cases(tmp_path):
    layouts.write(tmp_path, [f"{site}/p{k}.nii.gz" for site in ("siteA", "siteB") for k in range(5)])
    assert len(understand(tmp_path, Options(normal="*")).cases) == 10


def test_tasks_of_one_sequence_are_several_images(tmp_path):
    layouts.write(tmp_path, [f"sub-{k}/func/sub-{k}_task-{t}_bold.nii.gz" for t in ("rest", "nback") for k in range(5)])
    assert len(understand(tmp_path, Options()).cases) == 10
