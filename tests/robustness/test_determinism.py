"""Same seed, same machine: the same bytes; another seed: another model."""

import pytest

from workflows import METHODS, run


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_bytes(method, tmp_path):
    for name in ("first", "second"):
        run(method, tmp_path / name)
    first, second = ((tmp_path / name / "models" / "model.pt").read_bytes() for name in ("first", "second"))
    assert first == second


def test_another_seed_is_another_model(tmp_path):
    for seed in (0, 1):
        run("dpmm", tmp_path / str(seed), seed=seed)
    first, second = ((tmp_path / name / "models" / "model.pt").read_bytes() for name in "01")
    assert first != second
