"""Patterns that users give: they match something, and what an error proposes works as it is typed."""

import re

import layouts
import pytest
from understood_cases import anomalous, understood

from dino_uad.data import datalist
from dino_uad.data.case import Options
from dino_uad.data.cases import list_images
from dino_uad.data.patterns import fits, pattern_of

FILES = [f"p{k}.png" for k in range(6)] + ["p0_lesion_mask.png = mask", "p1_lesion_mask.png = mask"]


@pytest.mark.parametrize("pattern", ["*lesoin*", "*Lesion*", "*lesion*,*x*", ""])
def test_a_mask_pattern_that_matches_nothing_is_an_error_that_lists_masks(tmp_path, pattern):
    with pytest.raises(ValueError, match=r"mask_pattern is '.*', which matches no file.*p0_lesion_mask\.png.*none ig"):
        understood(tmp_path, *FILES, mask_pattern=pattern)
    assert len(list_images(tmp_path, Options(mask_pattern=pattern)).cases) == 6  # inference may meet no mask


@pytest.mark.parametrize("none", ["none", "None"])
def test_only_none_ignores_masks(tmp_path, none):
    assert not anomalous(understood(tmp_path, *FILES, mask_pattern=none))


def test_an_image_pattern_that_matches_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"image_pattern is '\*foo\*', which matches no file.*Found p0\.png"):
        understood(tmp_path, *FILES, image_pattern="*foo*")


@pytest.mark.parametrize("name", ["p[1].png", "young, fit", "what?", "it's"])
def test_a_name_is_its_own_pattern_and_has_one_that_can_be_quoted(name):
    assert fits(name, name) and fits(name, pattern_of(name))
    assert not set("[]*,'\"!") & set(pattern_of(name))


@pytest.mark.parametrize("names", [("[A] ctl", "[B] path"), ("young, fit", "old, ill")])
def test_folders_with_commas_and_brackets_can_be_named_as_normal(tmp_path, names):
    layouts.write(tmp_path, [f"{name}/{name[1]}{k}.png" for name in names for k in range(4)])
    for typed in (names[0], pattern_of(names[0])):
        assert len(anomalous(understood(tmp_path, normal=typed))) == 4


def test_patterns_proposed_for_two_masks_tell_them_apart(tmp_path):
    files = [f"x{k}.png" for k in range(4)] + [f"m[{f}]/x0_mask.png = mask" for f in "ab"]
    with pytest.raises(ValueError, match=r"several masks for x0\.png") as error:
        understood(tmp_path, *files)
    one, both = re.findall(r"'([^']*\*[^']*)'", str(error.value))
    for pattern, count in ((one, 1), (both, 2)):
        assert [len(case.labels) for case in understood(tmp_path, mask_pattern=pattern) if case.labels] == [count]


def test_a_pattern_that_is_no_text_is_an_error_that_names_it(tmp_path):
    for name in ("normal", "pattern", "mask_pattern", "image_pattern", "group_pattern"):
        with pytest.raises(ValueError, match=rf"^{name} is 0; expected text, such as '0'"):
            datalist(tmp_path, **{name: 0})
