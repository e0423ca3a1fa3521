"""Attention by products against torch's in float64: any layout and size, bfloat16, and who takes which."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dino_uad.backbones import attention


@pytest.fixture
def by_products(monkeypatch):
    """As on a processor on which MKL is slow, for attention of any size, in several blocks of queries."""
    calls = []
    in_blocks = attention._in_blocks
    monkeypatch.setattr(attention, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(attention, "_WEIGHTS_A_CORE", 0)
    monkeypatch.setattr(attention, "_QUERIES", 7)
    monkeypatch.setattr(attention, "_in_blocks", lambda *operands: calls.append(1) or in_blocks(*operands))
    return calls


def exact(q, k, v):
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double()).transpose(1, 2).flatten(2)


def heads(n_images, n_heads, n_tokens, channels):
    """Queries, keys and values as a linear layer of a transformer leaves them: strided views of one tensor."""
    together = torch.randn(n_images, n_tokens, 3, n_heads, channels)
    return together.permute(2, 0, 3, 1, 4).unbind(0)


@given(st.integers(0, 3), st.integers(1, 3), st.integers(1, 40), st.integers(1, 9), st.booleans())
@settings(deadline=None, max_examples=40)
def test_values_are_those_of_float64(n_images, n_heads, n_tokens, channels, strided):
    q, k, v = heads(n_images, n_heads, n_tokens, channels)
    if not strided:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_QUERIES", 7)
        found = attention._in_blocks(q, k, v)
    torch.testing.assert_close(found.double(), exact(q, k, v), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_keys_have_in_common_costs_no_accuracy(by_products, dtype):
    """A vector added to all keys cancels in softmax, which bfloat16 products of such keys are too coarse for."""
    q, k, v = (one.to(dtype) for one in heads(2, 3, 60, 8))
    shifted = k + torch.randint(-16, 17, (8,)).to(dtype) * 4
    for keys in (k, shifted):
        with torch.autocast("cpu", dtype=torch.bfloat16):  # under which a backbone of bfloat16 runs
            found = attention.attend(q, keys, v)
        assert found.dtype == dtype
        error = (found.double() - exact(q, keys, v)).norm() / exact(q, keys, v).norm()
        assert error < (1e-6 if dtype == torch.float32 else 0.02)
    assert by_products


def test_gradients_float64_and_graphs_have_torchs_attention(by_products):
    q, k, v = heads(1, 2, 20, 4)
    attention.attend(q.double(), k.double(), v.double())
    attention.attend(q, k.clone().requires_grad_(), v).sum().backward()
    traced = torch.jit.trace(attention.attend, (q, k, v), check_trace=False)
    assert "scaled_dot_product_attention" in str(traced.graph)
    assert not by_products


def test_a_small_image_has_torchs_attention(by_products, monkeypatch):
    monkeypatch.setattr(attention, "_WEIGHTS_A_CORE", 401)
    monkeypatch.setattr(attention, "cores", lambda: 1)
    attention.attend(*heads(1, 2, 20, 4))
    assert not by_products
    attention.attend(*heads(1, 2, 21, 4))
    assert by_products


def test_embeddings_do_not_depend_on_the_number_of_threads(by_products, monkeypatch):
    """Two ranks with a thread each embed as one process with two."""
    monkeypatch.setattr(attention, "_QUERIES", 512)
    operands = heads(1, 2, 600, 64)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(attention.attend(*operands))
    torch.set_num_threads(before)
    assert len(by_products) == 2
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)
