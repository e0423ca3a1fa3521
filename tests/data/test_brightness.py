"""Data sets that use a small part of their type's range are told of, with the range that fits."""

import numpy as np
import pytest
from PIL import Image

from dino_uad.data.brightness import warn_dark
from dino_uad.transforms import LoadScand, ScaleToUnitd


def items(folder, *tops):
    for k, top in enumerate(tops):
        Image.fromarray(np.linspace(0, top, 48).reshape(6, 8).astype(np.uint16)).save(folder / f"{k:02d}.png")
    return [{"image": str(path)} for path in sorted(folder.iterdir())]


def test_twelve_bits_in_sixteen_get_the_range_of_the_whole_set(tmp_path, caplog):
    found = items(tmp_path, *[3000] * 20, 4095, *[3000] * 20)
    warn_dark(found)
    assert "{'mode':'range','window':[0,4095]}" in caplog.text
    image = ScaleToUnitd("image", "range", (0, 4095))(LoadScand("image")(found[20]))["image"]
    np.testing.assert_allclose(image.max(), 1, atol=1e-5)


@pytest.mark.parametrize(("top", "said"), [(0, "are black"), (60000, "")])
def test_black_and_bright_sets(tmp_path, caplog, top, said):
    warn_dark(items(tmp_path, top, top))
    assert (said in caplog.text) if said else not caplog.text
