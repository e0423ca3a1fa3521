"""What is asked of the C library."""

import platform
import subprocess
import sys

import pytest

PLACE_OF_A_TENSOR = """
import sys, torch
from dino_uad.heap import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
place = torch.empty(31 << 20, dtype=torch.uint8).data_ptr()
heap = next(line for line in open("/proc/self/maps") if line.rstrip().endswith("[heap]")).split()[0]
start, stop = (int(end, 16) for end in heap.split("-"))
print(start <= place < stop)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other rules")
@pytest.mark.parametrize(("way", "in_heap"), [("keep", True), ("leave", False)])
def test_large_tensors_come_from_the_heap_which_is_kept(way, in_heap):
    """What does not come from the heap is given back as soon as it is freed."""
    command = [sys.executable, "-c", PLACE_OF_A_TENSOR, way]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == str(in_heap)
