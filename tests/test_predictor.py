"""`dino_uad.load` gives what `inference.json` writes, byte for byte, for files, arrays and lists."""

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import dino_uad
import workflows
from dino_uad.findings import components
from scans import OBLIQUE, write_nifti


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data/`` (pictures), ``models/model.pt`` fitted to them, and a volume."""
    folder = tmp_path_factory.mktemp("fitted")
    workflows.run("dpmm", folder)
    rng = np.random.default_rng(5)
    write_nifti(folder / "volumes" / "scan.nii.gz", rng.integers(1, 900, (30, 40, 3)).astype(np.float32), OBLIQUE)
    logging.disable(logging.NOTSET)
    return folder


def load(folder: Path, **more):
    tiny = {key.replace("#", "__"): value for key, value in (workflows.TINY | workflows.METHODS["dpmm"]).items()}
    return dino_uad.load(workflows.BUNDLES / "dpmm", device="cpu", ckpt_dir=str(folder / "models"), **tiny, **more)


@pytest.fixture(scope="module")
def detector(fitted: Path):
    return load(fitted)


def test_a_volume_of_which_nothing_is_scored_is_no_result(detector, tmp_path):
    write_nifti(tmp_path / "blank.nii.gz", np.zeros((30, 40, 3), np.float32), OBLIQUE)
    with pytest.raises(ValueError, match=r"blank\.nii\.gz: no slice has enough foreground"):
        detector(tmp_path / "blank.nii.gz")


@pytest.mark.parametrize("source", ["volumes/scan.nii.gz", "data/test/Ungood/img/u0.png"])
def test_the_bytes_are_those_of_inference(fitted, detector, tmp_path, source):
    places = {"dataset_dir": str(fitted / source), "ckpt_dir": str(fitted / "models")}
    workflows.run("dpmm", tmp_path, "inference", device="cpu", **places)
    result = detector(fitted / source)
    written = result.save(tmp_path / "api")
    assert len(written) == 2
    for path in written:
        assert path.read_bytes() == (tmp_path / "inference" / path.name).read_bytes()
    if source.endswith(".gz"):
        saved = nib.load(tmp_path / "inference" / "scan_anomaly.nii.gz")
        np.testing.assert_array_equal(result.anomaly_map, saved.get_fdata(dtype=np.float32))
        np.testing.assert_allclose(result.affine, saved.affine, atol=1e-6)
    else:
        np.testing.assert_array_equal(result.anomaly_map, np.asarray(Image.open(written[0])))
        np.testing.assert_array_equal(result.label_map * 255, np.asarray(Image.open(written[1])))
        assert result.affine is None


def test_an_array_is_scored_like_its_file(fitted, detector):
    path, picture = fitted / "volumes" / "scan.nii.gz", fitted / "data/test/good/img/g0.png"
    volume = nib.load(path)
    from_array = detector(volume.get_fdata(), affine=volume.affine)
    from_file = detector(str(path))
    np.testing.assert_array_equal(from_array.anomaly_map, from_file.anomaly_map)
    pixels = np.asarray(Image.open(picture))
    grey, floats = detector(pixels), detector(pixels / np.float32(255))
    np.testing.assert_array_equal(grey.anomaly_map, detector(picture).anomaly_map)
    np.testing.assert_array_equal(grey.anomaly_map, floats.anomaly_map)
    assert detector(np.stack([pixels] * 3, axis=-1)).anomaly_map.shape == pixels.shape


def test_a_list_gives_a_list_and_thresholds_mark_the_label(fitted, detector):
    paths = sorted((fitted / "data/test").glob("*/img/*.png"))
    results = detector(paths)
    assert [result.source for result in results] == [str(path) for path in paths]
    for one, other in zip(results, detector.stream(paths), strict=True):
        assert one.score == other.score
        grown = components(one.anomaly_map, detector.finding_threshold, detector.thresholds[0.005])[0]
        np.testing.assert_array_equal(one.label_map > 0, grown > 0)


@pytest.mark.parametrize(
    ("source", "affine", "message"),
    [
        (np.zeros((4, 4, 4)), None, "with a .4,4. affine"),
        (np.full((4, 4), 7.0), None, r"in \[0, 1\]"),
        (np.zeros((4, 4), np.int32), None, "expected uint8"),
        ("nowhere.png", None, "nowhere.png"),
    ],
)
def test_what_cannot_be_scored_is_refused(detector, source, affine, message):
    with pytest.raises((ValueError, RuntimeError, FileNotFoundError), match=message):
        detector(source, affine)


def test_an_override_that_the_config_does_not_have_is_refused(fitted):
    with pytest.raises(ValueError, match="did you mean --image_size"):
        load(fitted, image_siez=[56, 56])
