"""What a person reads when a process that helps has gone."""

import errno
import os
import signal

import pytest
from torch.utils.data import DataLoader, Dataset

from dino_uad.digests import digest_file
from dino_uad.errors import explain
from dino_uad.files import atomic_path


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


def test_an_error_of_the_system_names_its_file(tmp_path) -> None:
    """Ours says what is wrong in its own words; one that only passed through this package says which file it met."""
    with pytest.raises(FileNotFoundError) as missing:
        digest_file(tmp_path / "scan #1.png")
    assert explain(missing.value) == f"{tmp_path / 'scan #1.png'}: No such file or directory"
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="cannot write") as refused, atomic_path(tmp_path / "model.pt"):
        raise full
    said = f"cannot write {tmp_path / 'model.pt'} (No space left on device); free space or choose another folder"
    assert explain(refused.value) == said
