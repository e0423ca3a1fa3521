"""Products by oneDNN against torch's in float64: values, gradients, any layout, and who takes which."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dino_uad import processor, products

LAYOUTS = {
    "rows": lambda matrix: matrix.clone(),
    "columns": lambda matrix: matrix.T.contiguous().T,
    "every second row": lambda matrix: matrix.repeat_interleave(2, 0)[::2],
    "part of each row": lambda matrix: F.pad(matrix, (3, 5))[:, 3:-5],
}


@pytest.fixture
def by_onednn(monkeypatch):
    """As on a processor on which MKL is slow, for products of any size."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    calls = []
    product = products._product
    monkeypatch.setattr(products, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(products, "_SMALL", 0)
    monkeypatch.setattr(products, "_product", lambda *operands: calls.append(1) or product(*operands))
    return calls


@pytest.mark.parametrize("of_weight", LAYOUTS)
@pytest.mark.parametrize("of_rows", LAYOUTS)
@pytest.mark.parametrize("bias", [None, torch.randn(20)])
def test_a_product_is_that_of_float64(by_onednn, of_rows, of_weight, bias):
    rows, weight = LAYOUTS[of_rows](torch.randn(30, 40)), LAYOUTS[of_weight](torch.randn(20, 40))
    exact = F.linear(rows.double(), weight.double(), None if bias is None else bias.double())
    torch.testing.assert_close(products.linear(rows, weight, bias).double(), exact, rtol=1e-5, atol=1e-5)
    assert by_onednn


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(1, 9), st.integers(1, 9), st.data())
@settings(deadline=None, max_examples=50)
def test_shapes_and_gradients_are_those_of_a_linear_layer(shape, channels, outputs, data):
    wanted = data.draw(st.tuples(*[st.booleans()] * 3))
    operands = torch.randn(*shape, channels), torch.randn(outputs, channels), torch.randn(outputs)
    found = [one.clone().requires_grad_(need) for one, need in zip(operands, wanted, strict=True)]
    exact = [one.double().requires_grad_(need) for one, need in zip(operands, wanted, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "mkl_is_slow", lambda: torch.backends.mkldnn.is_available())
        patch.setattr(products, "_SMALL", 1)  # of nothing there is no product
        result, expected = products.linear(*found), F.linear(*exact)
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
        if any(wanted):
            weights = torch.randn_like(result)
            (result * weights).sum().backward()
            (expected * weights).sum().backward()
    for one, other, need in zip(found, exact, wanted, strict=True):
        if need:
            torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-5, atol=1e-5)


def test_what_is_not_a_product_in_float32_is_left_to_torch(by_onednn):
    rows, weight = torch.randn(4, 6), torch.randn(5, 6)
    assert products.linear(rows.double(), weight.double()).dtype == torch.float64
    assert products.linear(rows.bfloat16(), weight.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert products.linear(rows, weight).dtype == torch.bfloat16
    assert not by_onednn


def test_a_graph_has_torchs_product(by_onednn):
    class Layer(nn.Module):
        def forward(self, rows):
            return products.linear(rows, torch.ones(5, 6))

    traced = torch.jit.trace(Layer(), torch.randn(4, 6), check_trace=False)
    assert "mkldnn" not in str(traced.graph) and not by_onednn


@pytest.mark.parametrize(
    ("cpuinfo", "avx512", "slow"),
    [
        ("processor: 0\nvendor_id\t: AuthenticAMD\nmodel: 1\n", True, True),
        ("processor: 0\nvendor_id\t: AuthenticAMD\nmodel: 1\n", False, False),
        ("processor: 0\nvendor_id\t: GenuineIntel\nmodel: 1\n", True, False),
        ("processor: 0\nBogoMIPS: 50\n", True, False),
    ],
)
def test_mkl_is_slow_where_it_does_not_take_what_the_processor_has(monkeypatch, cpuinfo, avx512, slow):
    monkeypatch.setattr(processor.Path, "read_text", lambda self, **_: cpuinfo)
    monkeypatch.setattr(processor.platform, "processor", lambda: "")
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: avx512)
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)
    assert processor.mkl_is_slow.__wrapped__() is slow


@given(st.integers(0, 5000), st.sampled_from([1, 32, 128]))
def test_sides_that_come_again_are_few_and_no_smaller(size, step):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "mkl_is_slow", lambda: True)
        filled = products.recurring(size, step)
        assert size <= filled < size + step and filled % step == 0
        patch.setattr(products, "mkl_is_slow", lambda: False)
        assert products.recurring(size, step) == size
