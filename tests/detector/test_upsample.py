import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from dino_uad.detector.upsample import upsample_scores


@pytest.mark.parametrize("case", range(4))
def test_matches_the_reference_map(golden, case):
    arrays, meta = golden("anomalydino_dists2map")
    dists = torch.from_numpy(arrays[f"dists_{case}"])[None, None]
    expected_resize, expected_map = arrays[f"resized_{case}"], arrays[f"map_{case}"]
    # OpenCV interpolates in float32 even for float64 input, so the resized map carries float32 rounding.
    tolerance = 1e-6 * np.abs(dists).max().item()

    resized = upsample_scores(dists, expected_resize.shape)[0, 0].numpy()
    smoothed = upsample_scores(dists, expected_map.shape, sigma=meta["sigma"])[0, 0].numpy()

    assert resized.dtype == expected_resize.dtype
    np.testing.assert_allclose(resized, expected_resize, rtol=0, atol=tolerance)
    np.testing.assert_allclose(smoothed, expected_map, rtol=0, atol=tolerance)


@settings(max_examples=30)
@given(st.tuples(*[st.integers(1, 12)] * 2), st.tuples(*[st.integers(1, 40)] * 2), st.sampled_from([0.0, 0.7, 4.0]))
def test_equals_interpolate_then_scipy(grid, size, sigma):
    patch = torch.rand(2, 1, *grid, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(grid)))
    resized = functional.interpolate(patch, size=size, mode="bilinear", align_corners=False).numpy()
    expected = gaussian_filter(resized, (0, 0, sigma, sigma), mode="reflect", truncate=4.0)
    np.testing.assert_allclose(upsample_scores(patch, size, sigma).numpy(), expected, atol=1e-12)


def test_half_precision_and_empty_batch():
    patch = torch.rand(1, 1, 4, 4).half()
    assert torch.equal(upsample_scores(patch, (9, 7), 1.0), upsample_scores(patch.float(), (9, 7), 1.0))
    assert upsample_scores(patch[:0], (9, 7), 1.0).shape == (0, 1, 9, 7)


class _Upsample(torch.nn.Module):
    def forward(self, patch):
        return upsample_scores(patch, (28, 42), 4.0)


def test_traced_and_exported_maps_are_the_same(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    patch, other = torch.rand(2, 1, 2, 3), torch.rand(2, 1, 2, 3)
    traced = torch.jit.trace(_Upsample(), patch)
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    torch.testing.assert_close(traced(other), _Upsample()(other))

    torch.onnx.export(_Upsample().eval(), (patch,), tmp_path / "up.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "up.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    np.testing.assert_allclose(output, _Upsample()(other).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "sigma"), [((0, 4), 0), ((4,), 0), ((4, 4), -1)])
def test_impossible_arguments_are_named(size, sigma):
    with pytest.raises(ValueError, match="found"):
        upsample_scores(torch.rand(1, 1, 2, 2), size, sigma)
