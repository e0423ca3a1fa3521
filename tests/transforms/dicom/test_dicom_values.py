"""Pixel values: rescaled frame by frame, MONOCHROME1 inverted, look-up tables, colours, compression."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEGLosslessSV1, JPEGLSLossless, RLELossless

from dicom_files import counted, dataset, write, write_slices
from dino_uad.transforms import LoadScan

SIGNED = np.array([[-2048, -5, 0], [7, 100, 2047]], "i2")


def load(path, data):
    return LoadScan()(write(path / "a", data))


def test_each_slice_has_its_own_slope(tmp_path):
    slopes, values = [1.0, 0.25, 0.0007, 3.5, 0.01, 2.0], counted()
    write_slices(tmp_path / "pet", values, kind="PT", RescaleSlope=lambda k: str(slopes[k]), RescaleIntercept="-0.5")
    np.testing.assert_allclose(LoadScan()(tmp_path / "pet")[0], values * slopes - 0.5, rtol=1e-6)


@pytest.mark.parametrize("bits", [12, 16])
def test_signed_monochrome1_is_inverted_within_its_bits(tmp_path, bits):
    data = dataset(SIGNED, BitsStored=bits, HighBit=bits - 1, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(load(tmp_path, data)[0, :, :, 0], (-1 - SIGNED).T)


def test_unsigned_monochrome1_is_inverted_within_its_bits_then_rescaled(tmp_path):
    values = counted((4, 3, 1))[..., 0]
    tags = {"BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": "2"}
    image = load(tmp_path, dataset(values, "DX", **tags, RescaleIntercept="1"))
    np.testing.assert_array_equal(image[0, :, :, 0], ((4095.0 - values) * 2 + 1).T)


@pytest.mark.parametrize("kind", ["u2", "i2"])
@pytest.mark.parametrize("high", [11, 13, 15])
def test_values_end_at_their_high_bit(tmp_path, kind, high):
    values = np.array([[0, 1, 1024], [2047, 5, 600]], "i4") - (2048 if kind == "i2" else 0)
    shifted = (values << (high - 11)).astype("i2").view("u2") & ((1 << (high + 1)) - 1)
    data = dataset(shifted.astype("u2").view(kind), BitsStored=12, HighBit=high, RescaleSlope="2", RescaleIntercept="1")
    np.testing.assert_array_equal(load(tmp_path, data)[0, :, :, 0], values.T * 2 + 1)


def test_a_high_bit_that_the_values_deny_is_refused(tmp_path):
    values = counted((4, 3, 1))[..., 0]
    with pytest.raises(ValueError, match=r"a: cannot be read: .*12 bits end at bit 15, but lower bits are in use"):
        load(tmp_path, dataset(values, BitsStored=12, HighBit=15))
    for high in (7, 16):
        with pytest.raises(ValueError, match=rf"12 bits end at bit {high} of 16; expected bit 11"):
            load(tmp_path, dataset(values, BitsStored=12, HighBit=high))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("kind", "values"), [("u2", [4500, 7]), ("i2", [-3000, 7]), ("i2", [3000, -1]), ("i2", [3000, -3000])]
)
def test_values_beyond_the_bits_stored_are_refused(tmp_path, kind, values, packed):
    data = dataset(np.array([values], kind), BitsStored=12, HighBit=11)
    if packed:
        data.compress(RLELossless, generate_instance_uid=False)
    with pytest.raises(ValueError, match=r"12 bits end at bit 11, but higher bits are in use.*Export it again"):
        load(tmp_path, data)


@pytest.mark.parametrize("kind", ["u2", "i2"])
def test_an_overlay_in_the_bits_above_is_left_out(tmp_path, kind):
    values = np.array([[0, 1, 1024], [2047, 5, 600]], kind)
    drawn = np.array([[0, 1, 0], [1, 0, 1]], kind) << 12
    data = dataset(values | drawn, BitsStored=12, HighBit=11)
    data.add_new(0x60000100, "US", 16)
    data.add_new(0x60000102, "US", 12)
    np.testing.assert_array_equal(load(tmp_path, data)[0, :, :, 0], values.T)
    data[0x60000102].value = 0  # in an element of its own
    with pytest.raises(ValueError, match="no overlay is declared in them"):
        load(tmp_path, data)


def test_padding_is_as_dark_as_the_darkest_pixel(tmp_path):
    values = np.array([[63536, 24, 1000], [1100, 63536, 2000]], "u2")
    image = load(tmp_path, dataset(values, "CT", PixelPaddingValue=63536, RescaleIntercept="-1024"))
    np.testing.assert_array_equal(image[0, :, :, 0].T, [[-1000, -1000, -24], [76, -1000, 976]])
    tags = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0}
    image = load(tmp_path, dataset(np.array([[0, 5], [7, 0]], "u1"), "DX", **tags))
    np.testing.assert_array_equal(image[0, :, :, 0].T, [[248, 250], [248, 248]])


def test_a_slope_of_zero_scales_nothing(tmp_path):
    values = counted((4, 3, 1))[..., 0]
    image = load(tmp_path, dataset(values, "CT", RescaleSlope="0", RescaleIntercept="0"))
    np.testing.assert_array_equal(image[0, :, :, 0], values.T)


def test_files_without_any_header_of_the_file_are_little_endian(tmp_path):
    data = dataset(counted((4, 3, 1))[..., 0])
    del data.file_meta
    pydicom.dcmwrite(tmp_path / "x", data, implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(LoadScan()(tmp_path / "x")[0, :, :, 0], counted((4, 3, 1))[..., 0].T)


def test_modality_table(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.LUTData, table.ModalityLUTType = (
        [4, 0, 16],
        np.array([10, 500, 30, 7], "u2").tobytes(),
        "US",
    )
    values = np.array([[0, 1, 2], [3, 3, 0]], "u2")
    image = load(tmp_path, dataset(values, "DX", ModalityLUTSequence=Sequence([table])))
    np.testing.assert_array_equal(image[0, :, :, 0], np.array([10, 500, 30, 7])[values].T)


def colour(photometric, pixels, **tags):
    data = dataset(np.ascontiguousarray(pixels[..., 0]), "US", **tags)
    data.SamplesPerPixel, data.PlanarConfiguration, data.PhotometricInterpretation = 3, 0, photometric
    data.PixelData = pixels.tobytes()
    return data


def test_rgb_is_a_picture_in_the_unit_range(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = load(tmp_path, colour("RGB", pixels))
    np.testing.assert_allclose(image, np.moveaxis(pixels, -1, 0).swapaxes(1, 2) / 255, atol=1e-6)
    assert image.meta["unit_range"] and len(image.meta["scan_shape"]) == 2


def test_ybr_becomes_rgb(tmp_path):
    grey = np.full((6, 8, 3), 128, np.uint8)
    grey[..., 0] = 200
    np.testing.assert_allclose(load(tmp_path, colour("YBR_FULL", grey)), 200 / 255, atol=1e-6)


def test_palette_becomes_rgb(tmp_path):
    data = dataset(np.array([[0, 1], [2, 1]], "u1"), "US", PhotometricInterpretation="PALETTE COLOR")
    colours = np.array([[0, 65535, 100], [300, 0, 65535], [5, 6, 7]], "u2")
    for name, table in zip(("Red", "Green", "Blue"), colours, strict=True):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [3, 0, 16])
        setattr(data, f"{name}PaletteColorLookupTableData", table.tobytes())
    expected = colours[:, [[0, 1], [2, 1]]] / 65535
    np.testing.assert_allclose(load(tmp_path, data), expected.swapaxes(1, 2), atol=1e-5)


def test_films_are_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match=r"3 frames without positions .* Export the frames"):
        load(tmp_path, dataset(counted((3, 4, 5)), "US"))


def test_mosaic_is_refused_in_words(tmp_path):
    data = dataset(counted((12, 12, 1))[..., 0], ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    with pytest.raises(ValueError, match=r"Siemens mosaic"):
        load(tmp_path, data)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLosslessSV1, JPEGLSLossless])
def test_compressed_values(tmp_path, syntax):
    gdcm = pytest.importorskip("gdcm")
    values = counted((32, 24, 1))[..., 0]
    plain = write(tmp_path / "plain.dcm", dataset(values, "CT", RescaleSlope="1", RescaleIntercept="-1024"))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(tmp_path / "packed.dcm"))
    assert writer.Write()
    np.testing.assert_array_equal(LoadScan()(tmp_path / "packed.dcm")[0, :, :, 0], values.T.astype(float) - 1024)
