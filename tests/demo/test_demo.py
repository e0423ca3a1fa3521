"""The generated demo data: same bytes for the same seed, plausible, labelled, and neither trivial nor impossible."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from dino_uad.data.folder_list import datalist
from dino_uad.demo.demo_dataset import make_demo, plan_subjects, write_volume
from dino_uad.demo.lesions import KINDS, add_lesions
from dino_uad.demo.phantom import SHAPE, SPACING, make_anatomy
from dino_uad.transforms.intensity import ScaleToUnitd


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(tmp_path_factory.mktemp("demo") / "set", n_train=1, n_valid=2, n_test=2, seed=3)


@pytest.fixture(scope="module")
def anatomy():
    return make_anatomy(np.random.default_rng(0))


def _picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_same_seed_gives_same_bytes_and_another_seed_does_not(demo, tmp_path):
    again = make_demo(tmp_path / "a", n_train=1, n_valid=1, n_test=1, seed=3)
    other = write_volume(tmp_path, plan_subjects(1, 1, 1)[0], seed=4)
    for path in again.glob("volumes/*/sub-00[12]_*.nii.gz"):
        assert path.read_bytes() == (demo / path.relative_to(again)).read_bytes()
    for path in again.glob("slices/**/sub-00[12]_*.png"):
        assert path.read_bytes() == (demo / path.relative_to(again)).read_bytes()
    assert (again / "volumes/train/sub-001_flair.nii.gz").read_bytes() != Path(other["image"]).read_bytes()


def test_complete_set_is_kept_and_foreign_folder_is_refused(demo, tmp_path):
    before = (demo / "demo.json").stat().st_mtime_ns
    assert make_demo(demo, n_train=1, n_valid=2, n_test=2, seed=3) == demo
    assert (demo / "demo.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="not the demo data set of these arguments"):
        make_demo(demo, n_train=1, n_valid=2, n_test=2, seed=5)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="Choose another folder"):
        make_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_splits_share_no_subject_and_train_has_no_lesion(demo):
    subjects = {
        split: {re.match(r"sub-\d+", path.name)[0] for path in demo.glob(f"*/{split}/**/sub-*")}
        for split in ("train", "valid", "test")
    }
    assert not subjects["train"] & subjects["valid"] | subjects["train"] & subjects["test"]
    assert not subjects["valid"] & subjects["test"]
    assert not list(demo.glob("*/train/**/*label*"))
    listed = json.loads((demo / "demo.json").read_text())["subjects"]
    assert all(subject["lesion"] is None for subject in listed if subject["split"] == "train")
    with_lesion = {f"sub-{subject['number']:03d}" for subject in listed if subject["lesion"]}
    assert {path.name[:7] for path in demo.glob("volumes/**/*_label.nii.gz")} == with_lesion


def test_default_plan_has_every_kind_of_lesion_in_the_test_or_validation_split():
    assert {subject.lesion for subject in plan_subjects(8, 6, 9)} == {None, *KINDS}


def test_volumes_have_mixed_orientations_and_one_physical_size(demo):
    codes = set()
    for path in demo.glob("volumes/**/*.nii.gz"):
        image = nib.load(path)
        codes.add("".join(nib.aff2axcodes(image.affine)))
        assert image.shape == SHAPE
        np.testing.assert_allclose(image.header.get_zooms(), SPACING, rtol=1e-6)
        assert image.get_data_dtype() == (np.uint8 if "label" in path.name else np.int16)
    assert len(codes) >= 2


def test_slices_are_the_volumes_axial_slices_upright(demo):
    """Independent of the project's transforms: canonical axes by nibabel, patient's right on the left."""
    for png in [*demo.glob("slices/train/good/*.png"), *demo.glob("slices/test/Ungood/img/*.png")]:
        name, index = png.stem.split("_")
        (path,) = demo.glob(f"volumes/*/{name}_flair.nii.gz")
        volume = nib.as_closest_canonical(nib.load(path)).get_fdata()
        expected = volume[::-1, ::-1, int(index)].T
        low, high = volume.min(), np.percentile(volume[volume != 0], ScaleToUnitd().percentiles[1])
        expected = np.clip((expected - low) / (high - low), 0, 1)
        assert np.abs(_picture(png) / 255 - expected).max() <= 0.5 / 255 + 1e-5
        if "Ungood" in png.parts:
            label = nib.as_closest_canonical(nib.load(str(path).replace("_flair", "_label"))).get_fdata()
            mask = _picture(png.parents[1] / "label" / png.name)
            np.testing.assert_array_equal(mask > 0, label[::-1, ::-1, int(index)].T > 0)
            assert mask.any()


def test_datalist_reads_both_layouts(demo):
    for layout in ("slices", "volumes"):
        for split in ("train", "valid", "test"):
            items = datalist(demo / layout, split)
            assert items
            assert any(item["anomalous"] for item in items) == (split != "train")


@pytest.mark.parametrize("kind", KINDS)
def test_lesion_lies_inside_the_brain_and_nothing_else_changes_much(anatomy, kind):
    signal, mask = add_lesions(anatomy, np.random.default_rng(1), KINDS[kind])
    assert mask.any()
    assert not (mask & ~anatomy.brain).any()
    assert mask.sum() < 0.25 * anatomy.brain.sum()
    assert (signal[~anatomy.brain] == anatomy.signal[~anatomy.brain]).all()
    inside, outside = np.abs(signal - anatomy.signal)[mask].mean(), np.abs(signal - anatomy.signal)[~mask].mean()
    assert inside > 20 * outside


def test_tissue_contrast_is_that_of_flair(anatomy):
    """White matter is 1, deep brain is mostly white matter, fluid is dark, fat outshines the brain, air is empty."""
    deep = anatomy.signal[anatomy.depth > 20]
    assert np.median(deep) == pytest.approx(1, abs=0.1)
    ventricles = anatomy.signal[(anatomy.depth > 25) & ~anatomy.brain]
    assert np.percentile(ventricles, 20) < 0.25
    assert anatomy.signal[~anatomy.brain].max() > np.percentile(anatomy.signal[anatomy.brain], 99)
    assert anatomy.signal[0].max() == 0


def test_subjects_differ_in_size_of_brain_and_ventricles():
    brains = [make_anatomy(np.random.default_rng(seed), (60, 60, 24), (3.76, 3.76, 5.0)).brain for seed in range(6)]
    volumes = np.array([brain.sum() for brain in brains]) * 3.76**2 * 5 / 1000
    assert (volumes > 900).all() and (volumes < 2000).all()  # millilitres, brain with its sulci
    assert volumes.std() > 20


def test_raw_intensity_neither_solves_nor_misses_the_task(demo):
    images = sorted(demo.glob("slices/*/*/img/*.png"))
    scores = np.concatenate([_picture(path).ravel() for path in images])
    masks = np.concatenate([_picture(path.parents[1] / "label" / path.name).ravel() > 0 for path in images])
    assert 0.5 < roc_auc_score(masks, scores) < 0.97
