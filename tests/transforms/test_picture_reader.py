"""Every picture mode arrives in [0, 1]; what cannot be read is named."""

import numpy as np
import pytest
from PIL import Image

from dino_uad.transforms.picture_reader import PICTURE_AFFINE, UnitPILReader
from raw_pictures import tiff

RAMP = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4) * 10  # [H=6, W=4], 0..230


def read(path):
    reader = UnitPILReader()
    array, meta = reader.get_data(reader.read(str(path)))
    return np.moveaxis(array, 0, 1), meta


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
def test_grey_8_bit_is_divided_by_255(tmp_path, suffix):
    Image.fromarray(RAMP).save(tmp_path / f"a.{suffix}")
    array, meta = read(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(array, RAMP / 255, atol=1e-7)
    assert array.dtype == np.float32 and meta["unit_range"] and tuple(meta["spatial_shape"]) == (4, 6)
    np.testing.assert_array_equal(meta["affine"], PICTURE_AFFINE)


def test_jpeg_is_close_to_its_source(tmp_path):
    Image.fromarray(np.full((16, 16), 128, np.uint8)).save(tmp_path / "a.JPG", quality=95)
    np.testing.assert_allclose(read(tmp_path / "a.JPG")[0], 128 / 255, atol=2 / 255)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_is_divided_by_65535(tmp_path, suffix):
    values = np.linspace(0, 65535, 24).astype(np.uint16).reshape(6, 4)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(read(tmp_path / f"a.{suffix}")[0], values / 65535, atol=1e-6)


def test_one_bit(tmp_path):
    Image.fromarray(RAMP > 100).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], (RAMP > 100).astype(np.float32))


def test_transparency_is_composited_on_black(tmp_path):
    alpha = np.full_like(RAMP, 51)
    Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(alpha)]).save(tmp_path / "la.png")
    np.testing.assert_allclose(read(tmp_path / "la.png")[0], RAMP / 255 * 0.2, atol=1e-6)
    rgba = np.stack([RAMP, RAMP // 2, RAMP * 0, alpha], -1)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    np.testing.assert_allclose(read(tmp_path / "rgba.png")[0], rgba[..., :3] / 255 * 0.2, atol=1e-6)


def test_palette_and_cmyk_become_rgb(tmp_path):
    rgb = np.zeros((6, 4, 3), np.uint8)
    rgb[:3], rgb[3:] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(rgb).quantize(2).save(tmp_path / "p.png")
    assert Image.open(tmp_path / "p.png").mode == "P"
    np.testing.assert_allclose(read(tmp_path / "p.png")[0], rgb / 255, atol=1e-6)
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "c.tif")
    np.testing.assert_allclose(read(tmp_path / "c.tif")[0], rgb / 255, atol=1e-6)


def test_float_tiff_keeps_its_values_and_says_whether_they_are_in_the_unit_range(tmp_path):
    unit = RAMP.astype(np.float32) / 230
    for values, expected in ((unit, True), (unit * 1000, False), (unit - 0.5, False)):
        Image.fromarray(values).save(tmp_path / "a.tif")
        array, meta = read(tmp_path / "a.tif")
        np.testing.assert_array_equal(array, values)
        assert meta["unit_range"] is expected


def test_several_pages_are_refused(tmp_path):
    pages = [Image.fromarray(RAMP)] * 3
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="3 pages"):
        read(tmp_path / "a.tif")


def test_camera_jpeg_with_a_preview_is_its_first_picture(tmp_path):
    first = Image.fromarray(np.full((24, 32, 3), 200, np.uint8))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[first.resize((8, 6))], quality=95)
    array, _ = read(tmp_path / "a.jpg")
    assert array.shape == (24, 32, 3)
    np.testing.assert_allclose(array, 200 / 255, atol=2 / 255)


@pytest.mark.parametrize("kind", ["u1", "<u2", "<f4"])
def test_tiff_that_counts_from_white_is_inverted_at_every_depth(tmp_path, kind):
    top = np.iinfo(kind).max if np.dtype(kind).kind == "u" else 1
    values = (np.linspace(0, 1, 24).reshape(4, 6) * top).astype(kind)
    straight, _ = read(tiff(tmp_path / "black.tif", values, 1))
    inverted, _ = read(tiff(tmp_path / "white.tif", (top - values).astype(kind), 0))
    np.testing.assert_allclose(straight, values / top, atol=1e-6)
    np.testing.assert_allclose(inverted, straight, atol=1e-6)
