"""Packed weights: the rounding of symmetric quantisation, a size near the entropy of the levels, the rest as it was."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from dino_uad.backbones.packed import pack_state, unpack_state

ROWS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 3).map(lambda n: 8 * n)),
    elements=st.floats(-1e4, 1e4, width=32),
)


@pytest.mark.parametrize(("name", "largest"), [("blocks.0.attn.qkv.weight", 42), ("pos_embed", 127)])
@given(values=ROWS)
def test_a_value_is_off_by_at_most_half_a_level_of_its_row(name: str, largest: int, values: np.ndarray) -> None:
    found = unpack_state(pack_state({name: torch.from_numpy(values)}))[name].numpy()
    level = np.abs(values).max(axis=1, keepdims=True) / largest
    assert (np.abs(found - values) <= level * (0.5 + 1e-3) + 1e-37).all()


def test_normal_weights_take_little_more_than_the_entropy_of_their_levels() -> None:
    weight = torch.randn(384, 1536, generator=torch.Generator().manual_seed(0))
    coded = pack_state({"blocks.0.w": weight})["blocks.0.w"]
    scale = weight.abs().amax(dim=1, keepdim=True) / 42
    bits = entropy(np.unique((weight / scale).round().numpy(), return_counts=True)[1], base=2)
    assert bits <= 8 * len(coded) / weight.numel() < 1.02 * bits


def test_levels_themselves_come_back_exactly() -> None:
    weight = torch.arange(-42, 54).clamp(max=42).float().reshape(2, 3, 16)
    weight[..., 0] = 42
    torch.testing.assert_close(unpack_state(pack_state({"blocks.w": weight}))["blocks.w"], weight, rtol=1e-6, atol=0)


def test_zeros_stay_zeros_and_what_has_no_rows_of_eights_is_in_half_precision() -> None:
    state = {"zero": torch.zeros(3, 8), "bias": torch.rand(8), "odd": torch.rand(2, 3, 14)}
    packed = pack_state(state)
    assert {name: tensor.dtype for name, tensor in packed.items() if not name.startswith("zero")} == {
        "bias": torch.float16,
        "odd": torch.float16,
    }
    found = unpack_state(packed)
    assert found.keys() == state.keys() and not found["zero"].any()
    assert all(torch.equal(found[name], state[name].half()) for name in ("bias", "odd"))


def test_a_state_that_holds_nothing_packed_is_left_alone() -> None:
    state = {"a.weight": torch.rand(3, 8), "b": torch.rand(2)}
    assert unpack_state(state).keys() == state.keys()
    assert all(unpack_state(state)[name] is tensor for name, tensor in state.items())


def test_bytes_that_are_no_levels_are_refused() -> None:
    packed = pack_state({"w": torch.rand(4, 8)})
    with pytest.raises(ValueError, match="found 32 levels, expected 64"):
        unpack_state(packed | {"w.shape": torch.tensor([8, 8]), "w.scale": torch.ones(8, 1)})
    with pytest.raises(ValueError, match=r"packed weights w: .*expected the levels of a tensor"):
        unpack_state(packed | {"w": packed["w"].flip(0)})
