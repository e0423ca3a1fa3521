"""Pictures that are sorted by linking them: the place that says class and split counts."""

import os
from pathlib import Path

import layouts
import pytest

from dino_uad.data.case import Case, Options
from dino_uad.data.cases import list_images, understand

LINKS = {"symbolic": os.symlink, "hard": os.link}


def linked(root: Path, link, places: dict[str, list[str]]) -> Path:
    layouts.write(root, [f"all/i{k}.png" for k in range(12)])
    for folder, names in places.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            link(root / "all" / name, root / folder / name)
    return root


def names(first: int, last: int) -> list[str]:
    return [f"i{k}.png" for k in range(first, last)]


def understood(root: Path, **options) -> list[Case]:
    return understand(root, Options(**options)).cases


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_links_in_class_folders_keep_their_class(tmp_path, link):
    linked(tmp_path, link, {"sorted/normal": names(0, 8), "sorted/tumor": names(8, 12)})
    assert [case.anomalous for case in understood(tmp_path)] == [False] * 8 + [True] * 4
    assert len(list_images(tmp_path, Options()).cases) == 12


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_links_in_split_folders_keep_their_split(tmp_path, link):
    linked(
        tmp_path,
        link,
        {"split/train/normal": names(0, 6), "split/test/normal": names(6, 8), "split/test/tumor": names(8, 12)},
    )
    cases = understood(tmp_path)
    assert [sum(case.split == split for case in cases) for split in ("train", "valid", "test")] == [5, 1, 6]
    assert all(case.anomalous == (case.image.folders[-1] == "tumor") for case in cases)


@pytest.mark.parametrize(
    "places", [("train/normal", "test/normal"), ("c/normal", "c/tumor"), ("split/train", "class/normal")]
)
def test_places_that_differ_are_asked_for_and_one_is_chosen(tmp_path, places):
    linked(tmp_path, os.symlink, {place: names(0, 12) for place in places})
    with pytest.raises(ValueError, match=r"are one file, and their folders say different things.*--train_data#pattern"):
        understood(tmp_path)
    assert {case.image.folders for case in understood(tmp_path, pattern=f"{places[0]}/*")} == {
        tuple(places[0].split("/"))
    }
