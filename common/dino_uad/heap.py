"""What becomes of freed memory: the C library is asked to keep some, or to give all back to the system."""

from __future__ import annotations

import ctypes

import torch


def keep_freed_memory() -> None:
    """Have the C library keep some of what is freed, instead of asking the system for it again.

    glibc takes blocks larger than any that it has given back, up to 32 MB, from the system and gives them back, and the
    end of its heap where it is twice as large. Without one such block a process that embeds single images of 448 pixels
    was, by chance, far slower than with it: its hidden layers came from the system in every block of the
    backbone. With another C library this is one allocation.
    """
    torch.empty((32 << 20) - (64 << 10), dtype=torch.uint8)  # and what the library adds to it


def return_free_memory() -> None:
    """Give freed heap back to the system, which it else keeps for later; only the GNU library can be asked."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
