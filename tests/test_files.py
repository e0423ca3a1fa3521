"""What killed runs leave of files being written goes; what is being written stays."""

import os
import signal
import time
from pathlib import Path

from dino_uad.files import DAY, PART, atomic_path, remove_leftovers, require_writable
from workflows import start


def write_and_wait(path):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        time.sleep(600)


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if PART in path.name]


def test_a_leftover_goes_once_its_writer_is_dead(tmp_path):
    writer = start(write_and_wait, tmp_path / "shard")
    until = time.monotonic() + 60
    while not any(path.read_text() for path in parts(tmp_path)) and time.monotonic() < until:
        time.sleep(0.01)
    require_writable(tmp_path)
    assert len(parts(tmp_path)) == 1, "it is being written"
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert len(parts(tmp_path)) == 1, "nothing was left: this test tests nothing"
    require_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_computer_stays_for_a_day(tmp_path):
    other = tmp_path / f".0123456789abcdef{PART}model.pt"
    other.write_text("half")
    assert remove_leftovers(tmp_path) == []
    os.utime(other, (time.time() - 1.1 * DAY,) * 2)
    assert remove_leftovers(tmp_path) == [other]


def test_a_file_taken_for_a_leftover_before_its_lock_is_made_again(tmp_path, monkeypatch):
    """Between creation and lock of a file another run may remove it."""
    from dino_uad import files

    real, removed = files.fcntl.flock, []

    def flock(file, kind):
        if kind == files.fcntl.LOCK_EX and not removed:
            removed.append(file.name)
            os.unlink(file.name)
        real(file, kind)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("whole")
        assert remove_leftovers(tmp_path) == []
    assert removed and (tmp_path / "a").read_text() == "whole"
