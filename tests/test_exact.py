"""float32 that is float32, whatever the user has set."""

import pytest
import torch

from dino_uad.exact import full_float32
from workflows import start

SETTINGS = {
    "nothing": lambda: None,
    "legacy flag": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "legacy function": lambda: torch.set_float32_matmul_precision("medium"),
    "new switch": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "new switch of everything": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
}


def switches() -> list[str]:
    return [backend.fp32_precision for backend in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)]


def turn_and_turn_back(setting: str) -> None:
    SETTINGS[setting]()
    before = switches()
    with full_float32():
        assert switches() == ["ieee", "ieee"]
        # Reading the legacy switches raises where the new ones say something else, as a product on CUDA would.
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"
    assert switches() == before
    if "legacy" in setting:
        assert torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("setting", SETTINGS)
def test_users_switches_are_turned_and_turned_back(setting):
    process = start(turn_and_turn_back, setting)  # they are of the whole process
    process.join(60)
    assert process.exitcode == 0


def test_an_error_turns_them_back_too():
    before = switches()
    with pytest.raises(KeyError), full_float32():
        raise KeyError
    assert switches() == before
