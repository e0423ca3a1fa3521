"""Masks that are known by what they hold, and annotations in DICOM."""

from pathlib import Path

import layouts
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from understood_cases import anomalous, understood

import dicom_files
from dino_uad.data.case import Options
from dino_uad.data.cases import list_images, understand
from scans import write_dicom, write_itk, write_nifti


def test_a_blank_mask_in_an_anomalous_folder_is_named(tmp_path):
    from dino_uad.data import datalist

    files = [f"{s}/good/{k}.png" for s in ("train", "valid") for k in range(3)]
    files += ["test/bad/img/a.png", "test/bad/img/b.png", "test/bad/label/a.png = mask", "test/bad/label/b.png = blank"]
    layouts.write(tmp_path, files)
    with pytest.raises(ValueError, match=r"label/b\.png: the mask is blank"):
        datalist(tmp_path, "test")


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_annotations_in_dicom_are_named_and_never_passed_over_in_silence(tmp_path, kind):
    for k in range(4):
        write_dicom(tmp_path / f"p{k}" / "ct", np.zeros((8, 8, 3), np.float32), uid=f"1.2.{k + 1}")
    dicom_files.write(tmp_path / "p1" / "note" / "IM0", dicom_files.dataset(None, "SR"))
    assert not anomalous(understood(tmp_path))
    dicom_files.write(tmp_path / "p1" / "marks" / "IM0", dicom_files.dataset(np.zeros((3, 8, 8), np.uint8), kind))
    with pytest.raises(ValueError, match=r"marks/IM0: DICOM annotation \(.*this format is not read.*mask_pattern none"):
        understood(tmp_path)
    passed = understand(tmp_path, Options(mask_pattern="none")).passed
    assert {role.reason for role in passed} == {
        "DICOM object without pixels (SR)",
        "masks that mask_pattern does not choose",
    }


def picture(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.mark.parametrize("kind", ["alpha", "palette"])
@pytest.mark.parametrize("name", ["x1_mask.png", "x1 drawn.png"])
def test_masks_without_colour_are_named_and_call_no_image_normal(tmp_path, kind, name):
    layouts.write(tmp_path, [f"x{k}.png" for k in range(4)])
    mark = np.pad(np.ones((5, 5), np.uint8), (4, layouts.SIDE - 9))
    if kind == "alpha":
        mask = Image.merge("LA", [Image.fromarray(0 * mark), Image.fromarray(255 * mark)])
    else:
        mask = Image.fromarray(mark).convert("P")
        mask.putpalette([0] * 768)
    mask.save(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: the mask has no value above 0.*Export it again"):
        understood(tmp_path)


@pytest.mark.parametrize("name", ["x1 drawn.png", "m1.png"])
def test_what_looks_like_a_mask_of_another_size_is_asked_for(tmp_path, name):
    layouts.write(tmp_path, [f"x{k}.png" for k in range(4)])
    picture(tmp_path / name, 255 * np.pad(np.ones((4, 4)), 2))
    with pytest.raises(ValueError, match=rf"{name}: 2 values\), and fit no image by name and size"):
        understood(tmp_path)


@pytest.mark.parametrize("name", ["image{}-{}.png", "marked{1}/image{0}.png"])
def test_copies_that_readers_drew_on_are_asked_for(tmp_path, name):
    """As in RIGA, where image1-1 to image1-6 are image1 with the contours of six readers."""
    rng = np.random.default_rng(0)
    layouts.write(tmp_path, [name.format(0, k) for k in range(2)])  # makes the folders
    for k in range(4):
        values = rng.integers(0, 255, (64, 64, 3))
        picture(tmp_path / f"image{k}.png", values)
        for reader in range(2):
            values[20:40, 20 : 24 + reader] = 0, 0, 255
            picture(tmp_path / name.format(k, reader), values)
    with pytest.raises(ValueError, match=r"looks like .*image0.png with something drawn on it \(\d\d % of"):
        understood(tmp_path)
    assert len(understood(tmp_path, image_pattern="*", group_pattern=r"image\d")) == 12


def test_anomalies_drawn_on_normal_images_are_no_such_copies(tmp_path):
    """As people make test sets with synthetic lesions."""
    layouts.write(tmp_path, [f"{name}/{k}.png" for name in ("normal", "synthetic") for k in range(6)])
    for k in range(6):
        values = np.asarray(Image.open(tmp_path / f"normal/{k}.png")).copy()
        values[2:6, 2:6] = 255
        picture(tmp_path / f"synthetic/{k}.png", values)
    assert len(anomalous(understood(tmp_path))) == 6


@pytest.mark.parametrize("names", [("p{0}/a/x", "p{0}/b/x"), ("{0}.dcm", "{0}_x.dcm")])
def test_masks_in_dicom_images_are_known_by_their_values(tmp_path, names):
    for k in range(4):
        values = np.random.default_rng(k).integers(0, 4000, (32, 32)).astype("u2")
        marks = np.pad(np.ones((8, 8), "u2"), 12)
        for name, pixels in zip(names, (values, marks), strict=True):
            path = tmp_path / name.format(k)
            dicom_files.write(
                path, dicom_files.dataset(pixels, "DX", series=f"1.2.{k + 1}{len(name)}", PatientID=f"P{k}")
            )
    assert {case.image.relative for case in understood(tmp_path)} == {names[0].format(k) for k in range(4)}


CONTENT = ("png", "soft.png", "small.jpg", "colour.png", "six.png", "parcels.nii", "nrrd", "mha", "nii", "soft.nii")


@pytest.mark.parametrize("what", CONTENT)
def test_masks_are_known_by_their_values(tmp_path, what):
    """Without a word in the name: soft edges, JPEG, colours, several labels, uncompressed volumes."""
    kind, _, suffix = what.rpartition(".")
    volume = suffix in ("nrrd", "mha", "nii")
    rng = np.random.default_rng(0)
    labels = np.zeros((64, 64, 12) if volume else (64, 64), np.uint8)
    for k in range(1, 7 if kind == "six" else 2):
        labels[8 * k : 8 * k + 7, 20:40] = k * (1 if volume else 40)
    if kind == "parcels":
        labels = rng.integers(0, 90, (8, 8, 4)).repeat(8, 0).repeat(8, 1).repeat(3, 2).astype(np.uint8)
    soft = ndimage.gaussian_filter(labels.astype(np.float32), 0.7)
    if volume:
        save = write_nifti if suffix == "nii" else write_itk
        for k in range(4):
            save(tmp_path / f"x{k}.{suffix}", rng.normal(300, 50, labels.shape).astype(np.int16))
        save(tmp_path / f"x1 drawn.{suffix}", soft if kind == "soft" else labels)
    else:
        for k in range(4):
            Image.fromarray(rng.integers(20, 255, labels.shape).astype(np.uint8)).save(tmp_path / f"x{k}.png")
        values = {"soft": (soft * 6).astype(np.uint8), "small": (labels > 0) * np.uint8(255)}.get(kind, labels)
        if kind == "colour":
            values = values[..., None] * np.array([5, 0, 2], np.uint8)
        Image.fromarray(values).save(tmp_path / f"x1 drawn.{suffix}")
    assert [image.relative for image in (case.image for case in understood(tmp_path))] == [
        f"x{k}.{suffix if volume else 'png'}" for k in range(4)
    ]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("p{}.png", "p{}_target.png"),
        ("scans/p{}.png", "drawn/p{}.png"),
        ("p{}_FLAIR.nii.gz", "p{}_lesion.nii.gz"),
        ("p{}/image.png", "p{}/target.png"),
    ],
)
def test_blank_masks_that_only_values_of_others_tell_are_no_images(tmp_path, image, mask):
    files = [image.format(k) for k in range(1, 9)]
    masks = [f"{mask.format(k)} = {'mask' if k % 2 else 'blank'}" for k in range(1, 9)]
    assert anomalous(understood(tmp_path, *files, *masks)) == set(files[::2])
    assert len(list_images(tmp_path, Options()).cases) == 8


def test_blank_images_of_other_names_stay_images(tmp_path):
    files = [f"p{k}.png" for k in range(1, 6)] + ["p1_target.png = mask", "p2_late.png = blank", "q9.png = blank"]
    assert len(understood(tmp_path, *files)) == 7
