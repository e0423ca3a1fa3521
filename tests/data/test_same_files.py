"""Copies of an image are never drawn into different splits."""

import shutil
from collections import defaultdict
from pathlib import Path

import layouts
import pytest

from dino_uad.data.case import Case, Options
from dino_uad.data.cases import understand


def splits_of_bytes(cases: list[Case]) -> list[set[str]]:
    found = defaultdict(set)
    for case in cases:
        found[case.image.path.read_bytes()].add(case.split)
    return list(found.values())


def copied(root: Path, files: list[str], to: str) -> Path:
    layouts.write(root, files)
    for file in files:
        target = root / to.format(folder=Path(file).parent, name=Path(file).name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, target)
    return root


@pytest.mark.parametrize("to", ["all/{folder}/{name}", "{folder}/image({name}).png"])
def test_copies_stay_in_one_split(tmp_path, to):
    copied(tmp_path, [f"{c}/{c}{k}.png" for c in ("no", "yes") for k in range(10)], to)
    for seed in range(3):
        understood = understand(tmp_path, Options(seed=seed))
        assert all(len(splits) == 1 for splits in splits_of_bytes(understood.cases))
        assert "20 images are copies of others (such as " in " ".join(understood.notes)


def test_copies_within_train_stay_in_one_split(tmp_path):
    copied(tmp_path, [f"train/good/q{k}.png" for k in range(8)], "train/good/x{name}")
    layouts.write(tmp_path, [*(f"other/{k}.png" for k in range(8)), "test/good/t.png", "test/bad/t2.png"])
    shutil.rmtree(tmp_path / "other")  # only to draw other noise for the test
    assert all(len(splits) == 1 for splits in splits_of_bytes(understand(tmp_path, Options()).cases))


def test_black_slices_and_templates_join_nobody(tmp_path):
    layouts.write(tmp_path, [f"p{p}/{k}.png" for p in range(6) for k in range(3)])
    for p in range(6):
        layouts.write(tmp_path, [f"p{p}/black.png = blank"])
        shutil.copy(tmp_path / "p0/0.png", tmp_path / f"p{p}/template.png")
    assert len({case.group for case in understand(tmp_path, Options()).cases}) == 6
