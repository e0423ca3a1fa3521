"""`dino_uad.load` gives what `inference.json` writes, byte for byte, for files, arrays and lists."""

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

import dicom_series
import dino_uad
import raw_pictures
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


def test_pictures_in_memory_are_scored_like_their_files(detector, tmp_path):
    grey = np.random.default_rng(3).integers(0, 65536, (56, 70)).astype(np.uint16)
    deep = np.random.default_rng(4).integers(0, 65536, (56, 70, 3)).astype(np.uint16)
    small = (deep >> 8).astype(np.uint8)
    files = {name: tmp_path / f"{name}.png" for name in ("grey", "deep", "small", "coloured", "see_through")}
    Image.fromarray(grey).save(files["grey"])
    Image.fromarray(small).save(files["small"])
    Image.fromarray(small).quantize(40).save(files["coloured"])
    Image.fromarray(np.dstack([small, small[..., 0]])).save(files["see_through"])
    raw_pictures.png(files["deep"], deep)
    Image.fromarray(small).convert("CMYK").save(tmp_path / "printed.jpg")
    Image.fromarray(grey.astype(np.float32) / 7).save(tmp_path / "measured.tif")
    Image.fromarray(grey.astype(np.int32) * 9 - 7000).save(tmp_path / "signed.tif")
    pillow = {path.name: Image.open(path) for path in tmp_path.iterdir() if path.name != "deep.png"}
    same = {
        "grey.png": [grey, grey.astype(">u2"), grey.astype("<u2"), torch.from_numpy(grey), grey / 65535.0],
        "deep.png": [deep, deep.astype(">u2"), deep / 65535.0, torch.from_numpy(deep / np.float32(65535))],
        "small.png": [small, np.asfortranarray(small), torch.from_numpy(small), small / 255.0, small / np.float32(255)],
    }
    assert len(pillow) == 7
    for name in pillow | same:
        expected = detector(tmp_path / name).anomaly_map
        for given in [*same.get(name, []), *([pillow[name]] if name in pillow else [])]:
            found = detector(given).anomaly_map
            np.testing.assert_array_equal(found, expected, err_msg=f"{name}: {type(given)}")
    half = detector(torch.from_numpy(small / 255.0).half()).anomaly_map  # 11 bits
    np.testing.assert_allclose(half, detector(small).anomaly_map, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", ["<i2", ">i2", "u1", "<f8", ">f4", "i8"])
def test_volumes_in_memory_are_scored_like_their_files(detector, tmp_path, kind):
    values = np.random.default_rng(6).integers(1, 250, (30, 40, 3)).astype(kind)
    stored = nib.Nifti1Image(values.astype(np.float32), OBLIQUE / np.array([[1000.0]] * 3 + [[1.0]]))
    stored.header.set_xyzt_units("meter")
    nib.save(stored, tmp_path / "metres.nii.gz")
    nib.save(nib.Nifti1Image(values.astype(np.int16), OBLIQUE), tmp_path / "scan.nii.gz")
    expected = detector(tmp_path / "scan.nii.gz")
    native = values.astype(values.dtype.newbyteorder("="))
    plain = nib.Nifti1Image(values, OBLIQUE, dtype=values.dtype)
    for given in (values, torch.from_numpy(native)):
        found = detector(given, affine=OBLIQUE)
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
    for given in (plain, nib.load(tmp_path / "scan.nii.gz"), nib.MGHImage(values.astype(np.float32), OBLIQUE)):
        np.testing.assert_array_equal(detector(given).anomaly_map, expected.anomaly_map)
    in_metres, from_file = detector(nib.load(tmp_path / "metres.nii.gz")), detector(tmp_path / "metres.nii.gz")
    np.testing.assert_array_equal(in_metres.anomaly_map, from_file.anomaly_map)
    np.testing.assert_allclose(in_metres.affine, from_file.affine)
    assert [one.size for one in in_metres.findings] == [one.size for one in from_file.findings]


def test_scaled_integers_of_nibabel_keep_their_values(detector, tmp_path):
    image = nib.Nifti1Image(np.random.default_rng(7).normal(0, 1, (30, 40, 3)), OBLIQUE)
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "scaled.nii")
    loaded = nib.load(tmp_path / "scaled.nii")
    assert loaded.dataobj.slope != 1
    expected = detector(tmp_path / "scaled.nii").anomaly_map
    np.testing.assert_array_equal(detector(loaded).anomaly_map, expected)


def colours() -> nib.Nifti1Image:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    return nib.Nifti1Image(np.zeros((4, 4, 4), kind), np.eye(4))


@pytest.mark.parametrize(
    ("source", "affine", "message"),
    [
        (np.zeros((4, 4, 4)), None, "with a .4,4. affine"),
        (np.full((4, 4), 7.0), None, r"in \[0, 1\]"),
        (np.zeros((4, 4), np.int32), None, "expected uint8"),
        ("nowhere.png", None, "nowhere.png"),
        (np.full((4, 4, 3), 7.0), None, r"from 7 to 7 found; expected them in \[0, 1\]"),
        (np.full((4, 4), np.nan), None, r"in \[0, 1\]"),
        (np.zeros((4, 4), bool), None, "picture of bool found; expected uint8"),
        (np.zeros((4, 4, 1), np.uint8), None, r"\[4, 4, 1\] .*or a picture \[H,W\] or \[H,W,3\]"),
        (torch.zeros(3, 4, 4), None, r"array of shape \[3, 4, 4\] with affine"),
        (np.zeros((0, 4), np.uint8), None, "at least one"),
        (np.zeros((4, 4, 4), complex), np.eye(4), "dtype complex128 found; expected real numbers"),
        (np.full((4, 4), "x"), None, "expected real numbers"),
        (np.full((4, 4, 4), np.nan), np.eye(4), "^array: "),
        (np.zeros((4, 4), np.uint8), np.eye(4), "picture of shape .4, 4. with an affine"),
        (Image.new("L", (4, 4)), np.eye(4), "an affine given for a Image"),
        (colours(), None, "one real number a voxel"),
        ("nowhere.nii", np.eye(4), "nowhere.nii: affine or name given"),
        (b"scan.nii", None, "bytes found; expected a file, an array, a tensor"),
        (None, None, "NoneType found; expected a file"),
        ({"image": "scan.nii"}, None, "dict found; expected a file"),
    ],
)
def test_what_cannot_be_scored_is_refused(detector, source, affine, message):
    with pytest.raises((ValueError, RuntimeError, FileNotFoundError, TypeError), match=message):
        detector(source, affine)


@pytest.mark.parametrize("name", ["", "..", "a/b", 3, ["a"]])
def test_a_name_is_no_path(detector, name):
    with pytest.raises(ValueError, match=r"name is .* expected the name of a file"):
        detector(np.zeros((8, 8), np.uint8), name=name)


def pictures_of_one_name(folder: Path) -> list[Path]:
    """Of three patients, one after the other."""
    paths = [folder / f"p{i}" / "flair.png" for i in range(3)]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (56, 56)).astype(np.uint8)).save(path)
    return paths


def test_files_of_one_name_are_saved_as_inference_saves_them(fitted, tmp_path):
    paths = pictures_of_one_name(tmp_path / "new")
    new, line = str(tmp_path / "new"), str(tmp_path / "line")
    workflows.run("dpmm", fitted, "inference", dataset_dir=new, output_dir=line, device="cpu")
    expected = {path.name: path.read_bytes() for path in (tmp_path / "line").glob("flair*")}
    assert len(expected) == 6
    detector = load(fitted)
    results = list(detector.stream(paths))
    saved = [path for result in results for path in result.save(tmp_path / "api")]
    assert {path.name: path.read_bytes() for path in saved} == expected
    assert [path for result in results for path in result.save(tmp_path / "api")] == saved  # again: the same names
    # Where the command line has saved, its names stay their files', also for a new program and in another order.
    for result in load(fitted).stream(paths[::-1]):
        result.save(tmp_path / "line")
    assert {path.name: path.read_bytes() for path in (tmp_path / "line").glob("flair*")} == expected
    hidden = load(fitted, anonymous_names=True)(paths[0]).save(tmp_path / "api")
    assert all(path.name.startswith("scan_") for path in hidden)


def test_arrays_have_names_and_overwrite_no_other(fitted, tmp_path, monkeypatch):
    detector, paths = load(fitted), pictures_of_one_name(tmp_path)
    first, second, third = (np.asarray(Image.open(path)) for path in paths)
    one, two = detector([first, second], name=["p1", "p2.5"])
    names = [path.name for result in (one, two) for path in result.save(tmp_path / "out")]
    assert names == ["p1_anomaly.tif", "p1_label.png", "p2.5_anomaly.tif", "p2.5_label.png"] and one.source == "p1"
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "out", "out", "~/out"):  # other words for the same
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(ValueError, match="has the results of another array called 'p1'"):
            detector(third, name="p1").save(folder)
    detector(first, name="p1").save("out")  # the same array is no other
    Image.fromarray(third).save(tmp_path / "p1.png")
    assert detector(tmp_path / "p1.png").save("out")[0].name not in names
    assert {path: path.read_bytes() for path in before} == before
    detector(first).save("unnamed")
    with pytest.raises(ValueError, match=r"another array called 'array'; .*detector\(array, name="):
        detector(second).save("unnamed")
    with pytest.raises(ValueError, match="a name for each"):
        detector([first, second], name="p1")


def test_a_series_of_a_dicom_folder_is_chosen(fitted, tmp_path):
    scans = [np.random.default_rng(seed).integers(1, 900, (30, 40, 4)).astype(np.float64) for seed in range(2)]
    (tmp_path / "both").mkdir()
    for number, scan in zip((3, 7), scans, strict=True):
        for file in dicom_series.write_series(tmp_path / str(number), scan, np.eye(4), seed=number).iterdir():
            header = pydicom.dcmread(file)
            header.SeriesNumber = number
            header.save_as(file)
            header.save_as(tmp_path / "both" / file.name)
    detector = load(fitted)
    with pytest.raises(ValueError, match=r'2 stacks of DICOM images.*from Python series="\*axial\*"'):
        detector(tmp_path / "both")
    for number in (3, 7):
        alone = detector(tmp_path / str(number)).anomaly_map
        for given in (number, str(number), f"series {number}*"):
            np.testing.assert_array_equal(detector(tmp_path / "both", series=given).anomaly_map, alone)
    always = load(fitted, infer_data__series="7")
    assert always(tmp_path / "both").score == detector(tmp_path / "7").score
    assert always(tmp_path / "both", series="3").score == detector(tmp_path / "3").score


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("output_dir", "maps"),
        ("save_dicom", False),
        ("dataset_dir", "data"),
        ("infer_data__pattern", "*.png"),
        ("on_error", "skip"),
        ("resume", False),
        ("debug", True),
        ("worklist__resume", False),
        ("dataloader__batch_size", 2),
    ],
)
def test_what_changes_nothing_is_refused(fitted, key, value):
    with pytest.raises(ValueError, match=rf"{key} is .*nothing depends on it.*Leave it out"):
        load(fitted, **{key: value})


def test_what_is_used_somewhere_is_taken(fitted, monkeypatch):
    monkeypatch.setenv("HOME", str(fitted))
    used = {"displayable_configs__grow": "off", "slices__min_foreground": 0.01, "inferer__batch_size": 1}
    used |= {"axcodes": "PLS", "intensity": {"mode": "auto", "window": None}, "displayable_configs__smoothing": 1.0}
    tiny = {key.replace("#", "__"): value for key, value in (workflows.TINY | workflows.METHODS["dpmm"]).items()}
    dino_uad.load(workflows.BUNDLES / "dpmm", device="cpu", ckpt_dir="~/models", **tiny, **used)


def test_an_override_that_the_config_does_not_have_is_refused(fitted):
    with pytest.raises(ValueError, match="did you mean --image_size"):
        load(fitted, image_siez=[56, 56])


def test_a_value_that_a_component_does_not_take_is_refused(fitted):
    with pytest.raises(ValueError, match="--inferer#batch_size is 0; expected a whole number of at least 1"):
        load(fitted, inferer__batch_size=0)
