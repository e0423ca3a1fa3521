"""Names of files that are not UTF-8, as old shares have them, survive reading and saving."""

import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

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
