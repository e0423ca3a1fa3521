"""What a person reads when a process that helps has gone."""

import os
import signal

import pytest
from torch.utils.data import DataLoader, Dataset

from dino_uad.errors import explain


class Fatal(Dataset):
    """Whose worker the system kills, as it does where memory runs out."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, item: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_loader_is_told_of_with_what_to_try() -> None:
    with pytest.raises(RuntimeError) as killed:
        next(iter(DataLoader(Fatal(), num_workers=1)))
    said = explain(killed.value)
    assert "was killed" in said and "memory" in said and "--num_workers 0" in said


def test_other_errors_stay_what_they_say() -> None:
    assert explain(RuntimeError("the loader is empty")) == "the loader is empty"
