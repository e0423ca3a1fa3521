"""Counts and names in texts for people."""

import unicodedata

import pytest
import torch

from dino_uad.handlers.metrics_json import device_name
from dino_uad.wording import plural, visible, were


def test_one_is_no_plural() -> None:
    assert [plural(n, "file") for n in (0, 1, 2, 1000)] == ["0 files", "1 file", "2 files", "1,000 files"]
    assert (were(1, "file"), were(3, "file")) == ("1 file was", "3 files were")


@pytest.mark.parametrize(
    "name", ["a b.png", "ü 中.png", "שלום.png", "می\u200cخواهم.nii", r"c:\new.png", "x\u3000y.png"]
)
def test_names_that_can_be_seen_stay_as_they_are(name) -> None:
    assert visible(name) == name


def test_what_breaks_lines_or_turns_the_writing_is_written_out() -> None:
    assert visible("a\nb\r\t\x1b[2Kc.png") == r"a\nb\r\t\x1b[2Kc.png"
    assert visible("photo\u202egnp.exe") == r"photo\u202egnp.exe"
    turning = [chr(n) for n in range(0x11_0000) if unicodedata.bidirectional(chr(n)) in {"B", "S", "LRE", "RLE", "PDF"}]
    turning += list("\u200e\u200f\u061c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\x85")
    assert all(visible(one).isascii() and visible(one).isprintable() for one in turning)


def test_a_processor_with_one_thread_has_no_threads(monkeypatch) -> None:
    for count, said in ((1, "CPU, 1 thread"), (2, "CPU, 2 threads")):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        assert device_name(torch.device("cpu")).endswith(said)
