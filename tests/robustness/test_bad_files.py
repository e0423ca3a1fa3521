"""What is in a file: every bad one is refused with its name, what was found and what to do; odd ones just work."""

import os
import re

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from dicom_series import write_series
from dino_uad.data.folder_list import datalist
from dino_uad.errors import explain
from dino_uad.transforms.extract_slices import ExtractSlicesd
from dino_uad.transforms.fill_label import FillLabeld
from dino_uad.transforms.intensity import ScaleToUnitd
from dino_uad.transforms.load import LoadScand
from dino_uad.transforms.orient import OrientScand
from dino_uad.transforms.resize import InPlaneResized
from scans import volume, write_dicom, write_itk, write_nifti

KEYS = ("image", "label")
PIPELINE = Compose(
    [
        LoadScand(KEYS, allow_missing_keys=True),
        OrientScand(KEYS, allow_missing_keys=True),
        ScaleToUnitd("image"),
        ExtractSlicesd(KEYS),
        FillLabeld("label"),
        InPlaneResized("image", (56, 56)),
    ]
)


def picture(path, array=None, mode=None, **options):
    array = np.random.default_rng(0).integers(1, 255, (40, 30), dtype=np.uint8) if array is None else array
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def part(path, keep=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def text(path):
    path.write_text("this is not an image")
    return path


def empty(path):
    path.touch()
    return path


def flipped(path):
    """One wrong byte in the middle of a PNG: its checksum no longer holds."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return path


def filled(value, shape=(6, 6, 4)):
    array = np.ones(shape, np.float32)
    array[2, 2] = value
    return array


def pages(path):
    frames = [Image.new("L", (8, 8), k) for k in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def two_series(folder):
    write_dicom(folder, volume((8, 8, 2)), uid="1.2.3")
    return write_dicom(folder, volume((8, 8, 2)), uid="1.2.4")


def singular(path):
    write_itk(path, volume()).write_bytes(path.read_bytes().replace(b"(0,0,2)", b"(0,0,0)"))
    return path


def dangling(path):
    path.symlink_to("nowhere.png")
    return path


DAMAGED = r"cannot be read: .+Expected a picture .*complete and not damaged\. Copy or export the file again"
EMPTY = r"the file is empty \(0 bytes\)\. Expected a picture .*Copy or export it again"
DIMENSIONS = r"found \d+ channels or time points of shape .*; expected .*3-D volume.*Extract one channel"
VALUES = r"\d+ of \d+ values are NaN or infinite; expected finite intensities\. Replace them"
BAD = {
    "truncated png": (lambda d: part(picture(d / "a.png")), DAMAGED),
    "corrupt png": (lambda d: flipped(picture(d / "a.png")), DAMAGED),
    "text as png": (lambda d: text(d / "a.png"), DAMAGED),
    "empty png": (lambda d: empty(d / "a.png"), EMPTY),
    "truncated tiff": (lambda d: part(picture(d / "a.tif")), DAMAGED),
    "text as tiff": (lambda d: text(d / "a.tiff"), DAMAGED),
    "empty tiff": (lambda d: empty(d / "a.tif"), EMPTY),
    "truncated jpeg": (lambda d: part(picture(d / "a.jpg")), DAMAGED),
    "truncated nii": (lambda d: part(write_nifti(d / "a.nii", volume())), DAMAGED),
    "truncated nii.gz": (lambda d: part(write_nifti(d / "a.nii.gz", volume())), DAMAGED),
    "text as nii.gz": (lambda d: text(d / "a.nii.gz"), DAMAGED),
    "empty nii": (lambda d: empty(d / "a.nii"), EMPTY),
    "truncated nrrd": (lambda d: part(write_itk(d / "a.nrrd", volume())), DAMAGED),
    "truncated mha": (lambda d: part(write_itk(d / "a.mha", volume())), DAMAGED),
    "text as nrrd": (lambda d: text(d / "a.nrrd"), DAMAGED),
    "empty nrrd": (lambda d: empty(d / "a.nrrd"), EMPTY),
    "truncated dicom": (lambda d: part(write_dicom(d / "s", volume((32, 32, 1))) / "1.2.3-000.dcm"), DAMAGED),
    "text as dicom": (lambda d: text(d / "a.dcm"), DAMAGED),
    "empty dicom": (lambda d: empty(d / "a.dcm"), EMPTY),
    "two series": (
        lambda d: two_series(d / "s"),
        r"2 stacks of DICOM images: series \S+, MR, axial, 2 x 8x8, study 1; .*expected one\. Choose with.*or put each",
    ),
    "folder without images": (lambda d: d, r"no DICOM image found; expected one scan"),
    "1-D": (lambda d: write_nifti(d / "a.nii", volume((12,))), DIMENSIONS),
    "4-D": (lambda d: write_nifti(d / "a.nii", volume((6, 5, 4, 3))), DIMENSIONS),
    "5-D": (lambda d: write_nifti(d / "a.nii", volume((6, 5, 4, 1, 2))), DIMENSIONS),
    "colour volume": (lambda d: write_itk(d / "a.nrrd", volume((3, 6, 5, 4)), (1,) * 4, (0,) * 4), DIMENSIONS),
    "zero size": (lambda d: write_nifti(d / "a.nii", np.zeros((0, 4, 4), np.float32)), r"[Ee]xpected.*"),
    "NaN volume": (lambda d: write_nifti(d / "a.nii", filled(np.nan)), VALUES),
    "Inf volume": (lambda d: write_nifti(d / "a.nii", filled(-np.inf)), VALUES),
    "NaN tiff": (lambda d: picture(d / "a.tif", filled(np.nan, (8, 8))), VALUES),
    "several pages": (lambda d: pages(d / "a.tif"), r"3 pages, one was expected; save the pages as single files"),
    "singular affine": (lambda d: singular(d / "a.nrrd"), DAMAGED),
    "unknown type": (lambda d: text(d / "a.xyz"), r"not a supported file type\. Expected a picture .*Convert it"),
    "absent": (lambda d: d / "absent.png", r"no such file or folder\. Expected a picture .*; check the path"),
    "dangling link": (
        lambda d: dangling(d / "a.png"),
        r"no such file or folder\. Expected a picture .*; check the path",
    ),
}


def refusal(item):
    with pytest.raises(Exception) as caught:
        PIPELINE(item)
    return explain(caught.value)


@pytest.mark.parametrize("case", BAD)
def test_bad_image(case, tmp_path):
    make, expected = BAD[case]
    path = make(tmp_path)
    message = refusal({"image": str(path)})
    assert message.startswith(str(path))
    assert re.search(f"(?s){expected}", message), message


def test_an_empty_name_is_not_the_working_directory(tmp_path, monkeypatch):
    """MONAI Label hands one on for an image that it does not know."""
    write_series(tmp_path, np.zeros((8, 8, 3)), np.eye(4))
    monkeypatch.chdir(tmp_path)
    assert "found an empty file name; expected that of a picture" in refusal({"image": ""})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path):
    path = picture(tmp_path / "a.png")
    path.chmod(0)
    assert "Permission denied" in refusal({"image": str(path)})


LABELS = {
    "picture": lambda d: {"image": picture(d / "a.png"), "label": picture(d / "m.png", np.ones((4, 4), np.uint8))},
    "volume": lambda d: {
        "image": write_nifti(d / "a.nii", volume()),
        "label": write_nifti(d / "m.nii", np.ones((4, 4, 4), np.uint8)),
    },
}


@pytest.mark.parametrize("case", LABELS)
def test_mask_of_another_size(case, tmp_path):
    item = {key: str(path) for key, path in LABELS[case](tmp_path).items()}
    message = refusal(item)
    assert "m." in message and "4, 4" in message
    assert re.search("xpected (equal sizes|affines that agree)", message) and "esample" in message


SPECKLE = np.random.default_rng(1).integers(0, 255, (40, 30), dtype=np.uint8)
ODD = {
    "1x1": lambda d: picture(d / "a.png", np.full((1, 1), 7, np.uint8)),
    "huge aspect": lambda d: picture(d / "a.png", np.tile(SPECKLE[:1], (1, 200))),
    "odd size": lambda d: picture(d / "a.png", SPECKLE[:37, :29]),
    "16 bit": lambda d: picture(d / "a.png", SPECKLE.astype(np.uint16) * 257),
    "float": lambda d: picture(d / "a.tif", SPECKLE.astype(np.float32) * 40 - 1000),
    "1 bit": lambda d: picture(d / "a.png", SPECKLE, "1"),
    "CMYK": lambda d: picture(d / "a.jpg", SPECKLE, "CMYK"),
    "alpha": lambda d: picture(d / "a.png", np.stack([SPECKLE] * 4, -1)),
    "palette": lambda d: picture(d / "a.png", SPECKLE, "P"),
    "all zero": lambda d: picture(d / "a.png", SPECKLE * 0),
    "constant": lambda d: picture(d / "a.png", SPECKLE * 0 + 9),
    "constant volume": lambda d: write_nifti(d / "a.nii", np.full((6, 5, 4), 3.0, np.float32)),
    "negative CT": lambda d: write_nifti(d / "a.nii", volume((9, 8, 3)) - 1024),
    "unicode and spaces": lambda d: picture(d / "Größe µ  日本 (1).png"),
    "link": lambda d: (d / "b.png").symlink_to(picture(d / "a.png")) or d / "b.png",
}


@pytest.mark.parametrize("case", ODD)
def test_odd_image_gives_finite_slices(case, tmp_path):
    for item in PIPELINE({"image": str(ODD[case](tmp_path))}):
        image = item["image"]
        assert image.shape[0] in (1, 3) and tuple(image.shape[1:]) == (56, 56)
        assert torch.isfinite(image).all() and image.min() >= 0 and image.max() <= 1


@pytest.mark.parametrize(
    ("mask", "marked", "warned"),
    [(np.array([[0, 1], [2, 3]]), 0.75, False), (np.zeros((2, 2)), 0, False), (np.full((2, 2), 255), 1, True)],
)
def test_grey_empty_and_inverted_masks(mask, marked, warned, tmp_path, caplog):
    image = picture(tmp_path / "a.png", np.full((2, 2), 9, np.uint8))
    label = picture(tmp_path / "m.png", mask.astype(np.uint8))
    (item,) = PIPELINE({"image": str(image), "label": str(label)})
    assert item["label"].float().mean() == marked and item["has_mask"]
    assert ("m.png: the label marks most of its image; is it inverted?" in caplog.text) == warned


def test_bad_file_in_a_data_set_is_skipped_on_request_only(tmp_path, caplog):
    folder = tmp_path / "train" / "good"
    folder.mkdir(parents=True)
    for k in range(6):
        picture(folder / f"{k}.png")
    part(folder / "1.png")
    items = datalist(tmp_path, "train", on_error="skip") + datalist(tmp_path, "valid", on_error="skip")
    assert len(items) == 5 and "1.png" in caplog.text
