"""Every layout that users have, the splits, and what is refused."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dino_uad.data.case import Options
from dino_uad.data.cases import understand
from dino_uad.data.check import check
from dino_uad.data.folder_list import datalist
from dino_uad.data.split import split_groups
from dino_uad.data.walk import natural_key
from scans import volume, write_dicom, write_itk, write_nifti


def png(path: Path, value: int = 100, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)
    return path


def summary(items: list[dict], root: Path) -> list[tuple]:
    def relative(path):
        return str(Path(path).relative_to(root))

    return [(relative(i["image"]), relative(i["label"]) if "label" in i else None, i["anomalous"]) for i in items]


BMAD = {
    "split first, label": ("train/good/{}", "test/{}/img/{}", "test/Ungood/label/{}"),
    "split first, anomaly_mask": ("train/good/img/{}", "test/{}/img/{}", "test/Ungood/anomaly_mask/{}"),
    "class first": ("good/train/img/{}", "{}/test/img/{}", "Ungood/test/label/{}"),
}


@pytest.mark.parametrize("spelling", BMAD)
def test_bmad(tmp_path, spelling):
    train, test, label = BMAD[spelling]
    for k in range(4):
        png(tmp_path / train.format(f"p{k}_1.png"))
    for kind in ("good", "Ungood"):
        for k in (10, 2):
            png(tmp_path / test.format(kind, f"q_{k}.png"))
    for k in (10, 2):
        png(tmp_path / label.format(f"q_{k}.png"))
    assert [item[1:] for item in summary(datalist(tmp_path, "train"), tmp_path)] == [(None, 0)] * 3
    assert len(datalist(tmp_path, "valid")) == 1
    bad = [(test.format("Ungood", f"q_{k}.png"), label.format(f"q_{k}.png"), 1) for k in (2, 10)]
    good = [(test.format("good", f"q_{k}.png"), None, 0) for k in (2, 10)]
    assert summary(datalist(tmp_path, "test"), tmp_path) == bad + good  # natural order, capitals first
    assert summary(datalist(tmp_path, "test", normal_only=True), tmp_path) == good


def test_own_valid_folder_is_used(tmp_path):
    for split in ("train", "val", "test"):
        png(tmp_path / split / "good" / f"{split}.png")
    assert summary(datalist(tmp_path, "valid"), tmp_path) == [("val/good/val.png", None, 0)]


def test_mvtec(tmp_path):
    for k in range(3):
        png(tmp_path / f"train/good/{k:03d}.png")
    png(tmp_path / "test/good/000.png")
    png(tmp_path / "test/crack/000.png")
    png(tmp_path / "ground_truth/crack/000_mask.png")
    assert summary(datalist(tmp_path, "test"), tmp_path) == [
        ("test/crack/000.png", "ground_truth/crack/000_mask.png", 1),
        ("test/good/000.png", None, 0),
    ]
    assert len(datalist(tmp_path, "train")) == 2 and len(datalist(tmp_path, "valid")) == 1


def test_plain_folder_of_normal_pictures(tmp_path):
    for patient in "abcdefgh":
        for k in range(3):
            png(tmp_path / f"{patient}_{k}.png")
    splits = {split: datalist(tmp_path, split, valid_fraction=0.25) for split in ("train", "valid")}
    groups = {split: {item["group"] for item in items} for split, items in splits.items()}
    assert len(splits["train"]) == 18 and len(splits["valid"]) == 6 and not groups["train"] & groups["valid"]
    assert splits["valid"] == datalist(tmp_path, "valid", valid_fraction=0.25)
    assert splits["valid"] != datalist(tmp_path, "valid", valid_fraction=0.25, seed=1)
    with pytest.raises(ValueError, match="nothing left in split 'test'"):
        datalist(tmp_path, "test")


def every_split(root: Path, **options) -> list[tuple]:
    """What is understood of a folder, in natural order: (image, mask, anomalous)."""
    cases = understand(root, Options(**options)).cases
    return [
        (c.image.relative, c.labels[0].relative_to(root).as_posix() if c.labels else None, c.anomalous) for c in cases
    ]


def test_volumes_with_labels_in_one_folder(tmp_path):
    writers = {"nii.gz": write_nifti, "nrrd": write_itk, "mha": write_itk}
    label = np.zeros((12, 10, 7), np.float32)
    for k, (suffix, write) in enumerate(writers.items()):
        write(tmp_path / f"p{k}_flair.{suffix}", volume())
        label[0, 0, 0] = k > 0
        write(tmp_path / f"p{k}_{'seg' if k else 'label'}.{suffix}", label)
    write_dicom(tmp_path / "p3", volume())
    write_nifti(tmp_path / "labels" / "p3.nii.gz", label)
    write_nifti(tmp_path / "BraTS-GLI-00001-000-t2f.nii.gz", volume())
    write_nifti(tmp_path / "BraTS-GLI-00001-001-t2f.nii.gz", volume())
    assert every_split(tmp_path)[2:] == [
        ("p0_flair.nii.gz", "p0_label.nii.gz", False),  # an empty label marks a normal volume
        ("p1_flair.nrrd", "p1_seg.nrrd", True),
        ("p2_flair.mha", "p2_seg.mha", True),
        ("p3", "labels/p3.nii.gz", True),
    ]
    splits = [datalist(tmp_path, split) for split in ("train", "valid", "test")]
    assert sum(map(len, splits)) == 6
    sets = [{item["group"] for item in items} for items in splits]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    assert "BraTS-GLI-00001" in set.union(*sets)
    assert [item.keys() & {"label"} for item in datalist(tmp_path, "all")] == [set()] * 6


def test_case_folders(tmp_path):
    for patient in ("one", "two", "three"):
        write_nifti(tmp_path / patient / "flair.nii.gz", volume())
        write_nifti(tmp_path / patient / "seg.nii.gz", volume())
    assert [label for _, label, _ in every_split(tmp_path)] == [f"{p}/seg.nii.gz" for p in ("one", "three", "two")]
    assert {item["group"] for item in datalist(tmp_path, "all")} == {"one", "two", "three"}


def test_all_takes_a_single_file(tmp_path):
    path = png(tmp_path / "a.png")
    assert datalist(path, "all") == [{"image": str(path), "anomalous": 0, "group": "a"}]


def test_unicode_spaces_loops_and_other_files(tmp_path):
    for k in range(3):
        png(tmp_path / "train" / "good" / f"Ängström {k}.png")
    png(tmp_path / "test" / "good" / "x.png")
    (tmp_path / "train" / "good" / "loop").symlink_to(tmp_path)
    (tmp_path / "train" / "good" / "notes.csv").write_text("a,b")
    (tmp_path / "train" / "good" / "._hidden.png").write_text("mac")
    png(tmp_path / "__MACOSX" / "train" / "good" / "Ängström 0.png")
    (tmp_path / "train" / "good" / "again.png").symlink_to("Ängström 1.png")  # the file itself is listed later
    os.mkfifo(tmp_path / "train" / "good" / "pipe.png")
    assert len(datalist(tmp_path, "train")) + len(datalist(tmp_path, "valid")) == 3


def _mixed(root):
    png(root / "a.png")
    write_nifti(root / "b.nii", volume())


def _duplicate(root):
    png(root / "a.png")
    png(root / "a.jpg")


def _mask_of_other_size(root):
    png(root / "a.png")
    png(root / "a_mask.png", size=(4, 4))
    for name in "bcd":
        png(root / f"{name}.png")


def _some_masks(root):
    for k in range(2):
        png(root / f"test/Ungood/img/{k}.png")
    png(root / "test/Ungood/label/0.png")


def _orphan_masks(root):
    png(root / "a.png")
    png(root / "label" / "zzz.png")


def _truncated(root):
    png(root / "train/good/a.png")
    png(root / "train/good/c.png")
    png(root / "test/Ungood/img/b.png")
    png(root / "test/Ungood/label/b.png").write_bytes(b"\x89PNG")


BAD = {
    "empty": (lambda root: None, "no images.*an empty folder"),
    "other files": (lambda root: (root / "readme.md").write_text("x"), r"no images.*readme\.md.*expected one of"),
    "mixed": (_mixed, r"1 pictures \(such as a\.png\).*1 volumes \(such as b\.nii\).*kind="),
    "duplicates": (_duplicate, r"two images of one name.*a\.jpg.*a\.png"),
    "mask of another size": (_mask_of_other_size, r"a_mask\.png.*\(4, 4\).*\(8, 8\)"),
    "some masks": (_some_masks, "1 of 2 anomalous images have no mask"),
    "orphan masks": (_orphan_masks, r"1 of 1 masks.*zzz\.png.*image_pattern"),
    "truncated mask": (_truncated, r"b\.png.*cannot be read"),
    "one image": (lambda root: png(root / "a.png"), "1 image groups.*at least 2"),
    "only anomalous": (lambda root: png(root / "train/Ungood/a.png"), "no normal images for training"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(tmp_path, case):
    make, message = BAD[case]
    make(tmp_path)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        for split in ("train", "test"):
            datalist(tmp_path, split)


@pytest.mark.parametrize("test", ["test/bad/{}.png", "test/{}.png"])
def test_a_mask_of_another_size_in_any_split_is_an_error_before_the_fit(tmp_path, test):
    for k in range(4):
        png(tmp_path / f"train/good/{k}.png")
    png(tmp_path / test.format("x"))
    png(tmp_path / test.format("x_mask"), size=(4, 4))
    for call in (lambda: datalist(tmp_path, "train"), lambda: check(str(tmp_path))):
        with pytest.raises(ValueError, match=r"x_mask\.png: the mask is \(4, 4\)"):
            call()
    assert len(datalist(tmp_path, "valid")) == 1


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder.*dataset_dir"):
        datalist(tmp_path / "absent")


def test_skip_counts_and_names_unreadable_files(tmp_path, caplog):
    for k in range(4):
        png(tmp_path / "train" / "good" / f"p{k}.png")
    png(tmp_path / "valid" / "good" / "v.png")
    (tmp_path / "train/good/p1.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert len(datalist(tmp_path, "train", on_error="skip")) == 3
    assert "p1.png" in caplog.text and "skipped 1 of 4" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_skipped(tmp_path):
    for k in range(3):
        png(tmp_path / "train" / "good" / f"p{k}.png")
    png(tmp_path / "valid" / "good" / "v.png")
    (tmp_path / "train/good/p1.png").chmod(0)
    assert len(datalist(tmp_path, "train", on_error="skip")) == 2


def test_wrong_options(tmp_path):
    with pytest.raises(ValueError, match=r"split is '[a-z]+'; expected one of train, valid, test, all"):
        datalist(tmp_path, "training")


def test_natural_order():
    assert sorted(["s10", "s2", "S1", "a"], key=natural_key) == ["S1", "a", "s2", "s10"]


@settings(max_examples=40)
@given(st.sets(st.text(min_size=1), min_size=3, max_size=30), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32))
def test_drawn_sets_are_disjoint_whole_and_not_empty(names, first, second, seed):
    sets = split_groups(sorted(names), [first, second], seed)
    assert all(sets) and set.union(*sets) == names and sum(map(len, sets)) == len(names)
    assert sets == split_groups(sorted(names, reverse=True), [first, second], seed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "4d"}, "kind is '4d'; expected one of 2d, 3d, None"),
        ({"group_pattern": "("}, r"group_pattern is '\('; expected a regular expression"),
        ({"valid_fraction": 15}, r"valid_fraction is 15; expected a number in \[0, 1\)"),
        ({"test_fraction": -0.1}, "test_fraction is -0.1; expected a number in"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
    ],
)
@pytest.mark.parametrize("read", [check, datalist])
def test_wrong_options_of_a_folder(tmp_path, read, options, message):
    for split in ("train", "valid", "test"):  # also where nothing is drawn
        png(tmp_path / split / "good" / f"{split}.png")
    with pytest.raises(ValueError, match=message):
        read(tmp_path, **options)
