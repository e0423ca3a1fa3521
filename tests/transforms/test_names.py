"""Names of files as old shares and other systems have them survive reading and saving: not UTF-8, alike, too long."""

import hashlib
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dino_uad.files import atomic_path
from dino_uad.transforms import LoadScand, SaveMapd
from scans import volume, write_nifti


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("suffix", ["png", "nii.gz"])
def test_results_carry_the_bytes_of_the_name(tmp_path, suffix):
    source = tmp_path / os.fsdecode(b"Gr\xf6\xdfe." + suffix.encode())
    if suffix == "png":
        with open(source, "wb") as file:
            Image.fromarray(np.eye(8, dtype=np.uint8) * 200).save(file, "PNG")
    else:
        write_nifti(tmp_path / "plain.nii.gz", volume()).rename(source)
    image = LoadScand("image")({"image": str(source)})["image"]
    for value in (image, (image > 0).to(torch.uint8)):
        SaveMapd("image", tmp_path / "out")({"image": value})
    names = {name.split(b".")[0] for name in os.listdir(os.fsencode(tmp_path / "out"))}
    assert names == {b"Gr\xf6\xdfe_image"}


def saved_names(folder, sources):
    """Where the results of files go, by names alone."""
    save = SaveMapd("map", folder)
    return [save.path(str(source), "map", ".nii.gz").name for source in sources]


@pytest.mark.parametrize(("one", "other"), [("Scan1", "scan1"), ("e\u0301", "\u00e9"), ("STRASSE", "straße")])
def test_names_that_many_disks_take_for_one_do_not_overwrite_each_other(tmp_path, one, other):
    sources = [f"/data/a/{one}.nii.gz", f"/data/b/{other}.nii.gz"]
    first, second = saved_names(tmp_path, sources)
    digest = hashlib.sha256(sources[1].encode()).hexdigest()[:8]
    assert (first, second) == (f"{one}_map.nii.gz", f"{other}_{digest}_map.nii.gz")


@pytest.mark.parametrize("letter", ["n", "日", "😀"])
def test_a_name_that_is_too_long_for_a_result_is_cut_and_tells_its_place(tmp_path, letter):
    stem = letter * (248 // len(letter.encode()))
    sources = [f"/data/{folder}/{stem}.nii.gz" for folder in "ab"]
    names = saved_names(tmp_path, sources)
    for name, source in zip(names, sources, strict=True):
        digest = hashlib.sha256(source.encode()).hexdigest()[:8]
        assert name.startswith(letter * 40) and name.endswith(f"{letter}_{digest}_map.nii.gz")
        with atomic_path(tmp_path / name) as temporary:
            temporary.write_bytes(b"")
    assert sorted(os.listdir(tmp_path)) == sorted(names)
