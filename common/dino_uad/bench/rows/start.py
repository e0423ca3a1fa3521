"""How long the command line takes to answer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

from dino_uad.bench.row import Row
from dino_uad.bench.settings import Settings
from dino_uad.bench.timing import Timing

HELP = [sys.executable, "-m", "dino_uad", "--help"]
EMPTY = [sys.executable, "-c", "pass"]
HEAVY = "import sys, dino_uad.cli; print(sum(name in sys.modules for name in ('torch', 'monai', 'numpy')))"


def command_line(settings: Settings) -> Row:
    """``python -m dino_uad --help`` beside an empty interpreter."""
    row = Row("start", "Start of the command line", {"command": "python -m dino_uad --help"}, settings)
    _seconds(HELP)
    runs = [(_seconds(HELP), _seconds(EMPTY)) for _ in range(settings.repeats)]
    for name, pairs in zip(("help", "empty interpreter"), zip(*runs, strict=True), strict=True):
        row.timings[name] = Timing([wall for wall, _ in pairs], [cpu for _, cpu in pairs])
    row.figure("seconds until the help is printed", median(row.timings["help"].wall), "s", at_most=1)
    row.ratio("help / empty interpreter", "help", "empty interpreter")
    heavy = subprocess.run([sys.executable, "-c", HEAVY], capture_output=True, text=True, check=True).stdout
    row.check("heavy packages imported", int(heavy), 0)
    return row


def _seconds(command: list[str]) -> tuple[float, float]:
    """Wall clock and processor time of a command."""
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, cpu
