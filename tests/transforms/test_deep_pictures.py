"""Samples that Pillow has no mode for are read as they are, or refused by name; a rotation on display never counts."""

import numpy as np
import pytest
from PIL import Image

from dino_uad.data.brightness import warn_dark
from dino_uad.data.content import count_values
from dino_uad.data.image_size import size_of
from dino_uad.data.verify import check_sizes
from dino_uad.transforms import LoadScan, LoadScand, ScaleToUnitd
from raw_pictures import bmp32, png, tiff

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (20, 30, 4), dtype=np.uint16)
UNIT = DEEP / 65535


def rows(path):
    """``[H,W]`` or ``[H,W,3]`` as it was loaded."""
    image = LoadScan()(path).as_tensor().numpy()
    return np.moveaxis(image, 0, -1).swapaxes(0, 1).squeeze()


FILES = {
    "rgb.png": lambda path: png(path, DEEP[..., :3]),
    "rgba.png": lambda path: png(path, DEEP),
    "grey and alpha.png": lambda path: png(path, DEEP[..., :2]),
    "caf\udce9.png": lambda path: png(path, DEEP[..., :3]),
    "rgb.tif": lambda path: tiff(path, DEEP[..., :3], 2),
    "rgba.tif": lambda path: tiff(path, DEEP, 2, more={338: (2,)}),
    "not transparent.tif": lambda path: tiff(path, DEEP, 2, more={338: (0,)}),
}
EXPECTED = {
    "rgba.png": UNIT[..., :3] * UNIT[..., 3:],
    "rgba.tif": UNIT[..., :3] * UNIT[..., 3:],
    "grey and alpha.png": UNIT[..., 0] * UNIT[..., 1],
}


@pytest.mark.parametrize("name", FILES)
def test_colours_of_16_bits_keep_them(tmp_path, name):
    path = FILES[name](tmp_path / name)
    np.testing.assert_allclose(rows(path), EXPECTED.get(name, UNIT[..., :3]), atol=1e-6)
    assert LoadScan()(path).meta["type_range"] == 65535


def test_twelve_bits_of_colour_fill_the_range_that_is_offered(tmp_path, caplog):
    twelve = np.linspace(0, 4095, 600).astype(np.uint16).reshape(20, 30)
    path = str(png(tmp_path / "a.png", np.stack([twelve, twelve, twelve], -1)))
    warn_dark([{"image": path}])
    assert "{'mode':'range','window':[0,4095]}" in caplog.text
    image = ScaleToUnitd("image", "range", (0, 4095))(LoadScand("image")({"image": path}))["image"]
    np.testing.assert_allclose(np.asarray(image)[1].T, twelve / 4095, atol=1e-6)


def test_many_dark_levels_are_no_mask(tmp_path):
    """Of 160 levels Pillow's 8 bits leave ten, in patches, which looked like a label map."""
    levels = np.repeat(np.repeat(np.arange(160, dtype=np.uint16).reshape(10, 16) * 16, 8, 0), 8, 1)
    path = png(tmp_path / "a.png", np.stack([levels, levels, levels], -1))
    assert len(np.unique(np.asarray(Image.open(path)))) == 10
    assert count_values(path) is None


@pytest.mark.parametrize("tags", [{274: 6}, {284: 2}, {262: 5}])
def test_16_bit_colours_that_itk_reads_with_8_bits_are_refused(tmp_path, tags):
    """Rotated on display, in planes, CMYK."""
    array = DEEP if 262 in tags else DEEP[..., :3]
    path = tiff(tmp_path / "a.tif", array, 2, more=tags)
    if 284 in tags:
        strip = array.nbytes // 3
        path = tiff(tmp_path / "a.tif", array, 2, more=tags | {278: 20, 279: strip})
    with pytest.raises(
        ValueError, match=r"a\.tif: cannot be read: it (has 16 bits a colour.*save it|is a TIFF with 4 x 16)"
    ):
        LoadScan()(path)


def test_signed_bytes_and_large_integers_of_tiffs(tmp_path):
    signed = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
    large = np.array([[0, 1 << 20], [1 << 31, 0xFFFFFF00]], np.uint32)
    for name, values in (("i8", signed), ("u32", large)):
        path = tiff(tmp_path / f"{name}.tif", values)
        np.testing.assert_array_equal(rows(path), values.astype(np.float32))
        assert not LoadScan()(path).meta["unit_range"]


def test_packed_12_bits_are_divided_by_4095(tmp_path):
    values = RNG.integers(0, 4096, (6, 8))
    text = "".join(f"{value:012b}" for value in values.ravel())
    raw = bytes(int(text[k : k + 8], 2) for k in range(0, len(text), 8))
    path = tiff(tmp_path / "a.tif", values.astype(np.uint16), raw=raw, more={258: (12,)})
    np.testing.assert_allclose(rows(path), values / 4095, atol=1e-6)
    assert LoadScan()(path).meta["type_range"] == 4095


@pytest.mark.parametrize(("kind", "said"), [("f8", "1 x 64 bits a pixel, floating"), ("i8", "64 bits a pixel, signed")])
def test_samples_that_are_not_read_are_named(tmp_path, kind, said):
    path = tiff(tmp_path / "a.tif", np.zeros((4, 5), kind))
    with pytest.raises(ValueError, match=rf"a\.tif: cannot be read: it is a TIFF with .*{said}.*save it"):
        LoadScan()(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_no_format_is_turned_for_display(tmp_path, orientation):
    values = RNG.integers(0, 255, (20, 30), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(values).save(tmp_path / "a.bmp")
    tiff(tmp_path / "a.tif", values, more={274: orientation})
    Image.fromarray(values).save(tmp_path / "b.tif", compression="tiff_lzw", tiffinfo={274: orientation})
    for name in ("a.png", "a.tif", "b.tif"):
        np.testing.assert_allclose(rows(tmp_path / name), values / 255, atol=1e-6)
        assert size_of(tmp_path / name) == (30, 20)
        check_sizes([{"image": str(tmp_path / name), "label": str(tmp_path / "a.bmp")}])


def test_transparency_of_a_bmp_that_is_zero_throughout_is_unused(tmp_path):
    values = RNG.integers(1, 255, (6, 8, 4), dtype=np.uint8)
    values[..., 3] = 0
    np.testing.assert_allclose(rows(bmp32(tmp_path / "a.bmp", values)), values[..., :3] / 255, atol=1e-6)
    values[0, 0, 3] = 255
    np.testing.assert_allclose(rows(bmp32(tmp_path / "b.bmp", values))[1:], 0)
