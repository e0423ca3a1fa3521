"""Seven-bit weights: the rounding of symmetric quantisation, seven bytes for eight values, and nothing else changed."""

import hypothesis.extra.numpy as arrays
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dino_uad.backbones.packed import pack_state, unpack_state

ROWS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 3).map(lambda n: 8 * n)),
    elements=st.floats(-1e4, 1e4, width=32),
)


@given(ROWS)
def test_a_value_is_off_by_at_most_half_a_level_of_its_row(values: np.ndarray) -> None:
    packed = pack_state({"w": torch.from_numpy(values)})
    found = unpack_state(packed)["w"].numpy()
    level = np.abs(values).max(axis=1, keepdims=True) / 63
    assert (np.abs(found - values) <= level * (0.5 + 1e-3) + 1e-37).all()
    assert packed["w"].shape == (len(values), values.shape[1] * 7 // 8)


def test_levels_themselves_come_back_exactly() -> None:
    weight = torch.arange(-63, 65).clamp(max=63).float().reshape(2, 4, 16)
    weight[..., 0] = 63
    torch.testing.assert_close(unpack_state(pack_state({"w": weight}))["w"], weight, rtol=1e-6, atol=0)


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
