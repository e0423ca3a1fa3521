"""Peak memory in the same unit on every system."""

import runpy
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch

from dino_uad import measure

CPU = torch.device("cpu")


def test_peak_is_at_least_what_is_resident():
    resident = psutil.Process().memory_info().rss / 1e6
    assert resident * 0.9 < measure.peak_megabytes(CPU) < 20 * resident


@pytest.mark.parametrize(("platform", "reported"), [("linux", 2_000_000), ("darwin", 2_048_000_000)])
def test_ru_maxrss_is_kibibytes_on_linux_and_bytes_on_macos(platform, reported, monkeypatch):
    fake = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=reported))
    monkeypatch.setattr(measure, "resource", fake)
    monkeypatch.setattr(sys, "platform", platform)
    assert measure.peak_megabytes(CPU) == 2048


def test_windows_has_no_resource_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # importing it raises, as there
    found = runpy.run_path(measure.__file__)
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=3e6)))
    assert found["peak_megabytes"](CPU) == 3
