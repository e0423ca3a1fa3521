"""What killed runs leave of files being written goes; what is being written stays."""

import os
import signal
import time
from pathlib import Path

import pytest

from dino_uad.files import DAY, HOST, PART, atomic_path, remove_leftovers, require_writable
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


def test_a_leftover_goes_while_its_lock_is_held(tmp_path, monkeypatch):
    """Its writer, if it waits for the lock, must find it gone once it has it."""
    from dino_uad import files

    left, freed = tmp_path / f".{HOST}01234567{PART}a", []
    left.write_text("half")
    unlink = Path.unlink

    def look(path, **kwargs):
        with open(path, "rb") as file:
            try:
                files.fcntl.flock(file, files.fcntl.LOCK_EX | files.fcntl.LOCK_NB)
                freed.append(path)
            except BlockingIOError:
                pass
        unlink(path, **kwargs)

    monkeypatch.setattr(Path, "unlink", look)
    assert remove_leftovers(tmp_path) == [left] and not left.exists() and not freed


def test_a_file_made_again_since_it_was_opened_is_not_the_leftover(tmp_path, monkeypatch):
    """Another process removed the leftover first, and its writer, which had waited for the lock, made another one."""
    from dino_uad import files

    left = tmp_path / f".{HOST}01234567{PART}a"
    left.write_text("half")
    lock = files.fcntl.flock

    def made_again(file, kind):
        left.unlink()
        left.write_text("another")
        lock(file, kind)

    monkeypatch.setattr(files.fcntl, "flock", made_again)
    assert remove_leftovers(tmp_path) == [] and left.read_text() == "another"


@pytest.mark.parametrize("failure", [FileNotFoundError(2, "No such file", "source.png"), OSError(5, "I/O", b"other")])
def test_an_error_about_another_file_stays_what_it_is(tmp_path, failure):
    with pytest.raises(type(failure)) as caught, atomic_path(tmp_path / "copy"):
        raise failure
    assert caught.value is failure and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("named", ["temporary", "target", "folder", None])
def test_an_error_about_what_is_written_says_what_to_do(tmp_path, named):
    with pytest.raises(OSError, match=r"cannot write .*copy .*free space"), atomic_path(tmp_path / "copy") as temporary:
        files = {"temporary": temporary, "target": tmp_path / "copy", "folder": tmp_path}
        raise OSError(28, "No space left", *([str(files[named])] if named else []))
