"""Intensities end in [0, 1], never NaN."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.data import MetaTensor

from dino_uad.transforms.intensity import ScaleToUnitd
from dino_uad.transforms.percentile import percentile


def scale(values, **options):
    return ScaleToUnitd(**options)({"image": torch.as_tensor(np.asarray(values), dtype=torch.float32)})["image"]


def test_pictures_stay_as_they_are():
    image = MetaTensor(torch.rand(1, 4, 4), meta={"unit_range": True})
    assert torch.equal(ScaleToUnitd()({"image": image})["image"].as_tensor(), image.as_tensor())


def test_8_bit_volume_equals_the_8_bit_picture():
    values = np.random.default_rng(0).integers(0, 240, (1, 8, 8, 3))
    np.testing.assert_allclose(scale(values), values / 255, atol=1e-7)


def test_volume_is_scaled_by_the_percentile_of_its_non_zero_voxels():
    values = np.zeros((1, 100, 100))
    values[0, :50] = np.random.default_rng(0).uniform(100, 3000, (50, 100))
    expected = np.clip(values / np.percentile(values[values > 0], 99.99), 0, 1)
    np.testing.assert_allclose(scale(values), expected, atol=1e-5)


def test_window_maps_hounsfield_units():
    np.testing.assert_allclose(
        scale([[[-1000.0, -160, 40, 240, 3000]]], mode="window", window=(-160, 240)), [[[0, 0, 0.5, 1, 1]]]
    )


def test_zero_background_of_a_standardised_volume_stays_zero():
    values = np.zeros((1, 20, 20))
    values[0, 5:] = np.random.default_rng(0).normal(size=(15, 20))
    scaled = scale(values)
    assert float(scaled[0, :5].max()) == 0 and float(scaled.max()) == 1


@pytest.mark.parametrize("value", [0.0, 7.0, -1000.0])
def test_constant_becomes_zero(value):
    assert float(scale(np.full((1, 4, 4), value)).abs().max()) == 0


@settings(max_examples=100)
@given(hnp.arrays(np.float32, (1, 3, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)))
def test_any_finite_input_gives_finite_values_in_the_unit_range(values):
    scaled = scale(values)
    assert bool(scaled.isfinite().all()) and float(scaled.min()) >= 0 and float(scaled.max()) <= 1


WINDOWS = (None, (5, 5), 5, ("a", "b"), "ab", (0, float("nan")), (1, 2, 3))


@pytest.mark.parametrize(
    "options", [{"mode": "x"}, {"percentiles": (50, 10)}, *({"mode": "window", "window": window} for window in WINDOWS)]
)
def test_wrong_options(options):
    with pytest.raises(ValueError, match="expected"):
        ScaleToUnitd("image", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 5}, "window is 5; expected"),
        ({"window": [-100, 200]}, r"""--intensity "{'mode': 'window', 'window': \[-100, 200\]}\""""),
        ({"mode": "window", "window": (0, 1), "percentiles": (1, 99)}, "expected them with mode 'auto'"),
    ],
)
def test_an_option_that_the_mode_does_not_use_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        ScaleToUnitd("image", **options)


VALUES = st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 255.0])


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3), elements=VALUES), st.floats(0, 100))
def test_percentiles_are_those_of_numpy(values, percent):
    expected = np.percentile(values.astype(float), percent)
    assert percentile(values.T, percent) == pytest.approx(expected, rel=1e-9, abs=1e-30)
    if values.any():
        expected = np.percentile(values[values != 0].astype(float), percent)
        assert percentile(values, percent, skip_zeros=True) == pytest.approx(expected, rel=1e-9, abs=1e-30)
