"""Ranks that have unequal amounts of work: who is done waits for the others, for as long as they live."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ParamSpec, TypeVar

import torch.distributed as dist

from dino_uad import parallel
from dino_uad.errors import explain

Given = ParamSpec("Given")
Result = TypeVar("Result")
_BEATS = 20  # signs of life in the time after which a process counts as dead
_LONGEST_PAUSE = 1.0  # seconds between two looks at the others
_numbers = itertools.count()


@contextmanager
def unequal_work() -> Iterator[Callable[[], None]]:
    """Work that takes some ranks longer than others. It yields a function by which they meet when they are done.

    A collective gives up after the time-out of the group, ten minutes, which is less than ranks may differ by: hours of
    embedding by a few per cent, or an index that the first one builds alone. That function waits as long as the others
    give a sign of life, which a thread of theirs does, and raises if one has not for that time-out, or has failed. All
    ranks do such work in the same order, and a collective follows on it.

    The signs are numbers in the store by which the processes found each other: any backend has one, NCCL's collectives
    take no time-out of their own, and a second group beside it would need another network.

    Raises:
        RuntimeError: another process died or failed.
    """
    if not parallel.is_distributed():
        yield lambda: None
        return
    signs, over = _Signs(next(_numbers), parallel.patience()), threading.Event()
    heart = threading.Thread(target=signs.live, args=(over,), daemon=True)
    heart.start()
    try:
        yield signs.meet
    except BaseException as error:
        signs.say_failed(error)
        raise
    finally:
        over.set()
        heart.join(1)


def by_first_rank(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate what reads many files and makes a small thing of them: the first rank does it, all get what it returns.

    Every rank must call it, in the same order.
    """

    @functools.wraps(function)
    def shared(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        with unequal_work() as meet:
            made = function(*args, **kwargs) if parallel.rank() == 0 else None
            meet()
        return parallel.broadcast_object(made)

    return shared


class _Signs:
    """Signs of life that ranks exchange during one such work.

    Args:
        number: of the work, on every rank the same.
        patience: seconds after which a process without a sign of life counts as dead.
    """

    def __init__(self, number: int, patience: float) -> None:
        self._store = dist.distributed_c10d._get_default_store()
        self._number, self._patience = number, patience

    def live(self, over: threading.Event) -> None:
        """Give signs of life until the work is over."""
        with suppress(dist.DistError):  # the others are gone
            while not over.is_set():
                self._store.add(self._key("alive", parallel.rank()), 1)
                over.wait(self._patience / _BEATS)

    def say_failed(self, error: BaseException) -> None:
        """Spare the others the wait for a sign of life."""
        with suppress(dist.DistError):
            self._store.set(self._key("failed", parallel.rank()), explain(error) or type(error).__name__)

    def meet(self) -> None:
        """Wait until all ranks are here."""
        try:
            self._store.set(self._key("here", parallel.rank()), "yes")
            self._wait()
        except dist.DistError as error:
            raise RuntimeError(
                f"the process that the others meet through is gone ({error}): see what it logged last, then start again"
            ) from error

    def _wait(self) -> None:
        started, pause = time.monotonic(), 0.01
        last = dict.fromkeys(range(parallel.world_size()), (0, started))
        while last := {rank: self._look_at(rank, *seen) for rank, seen in last.items() if not self._is("here", rank)}:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _look_at(self, rank: int, signs: int, since: float) -> tuple[int, float]:
        """How many signs of life another process has given, and when the last one was new; raises if it is dead."""
        if self._is("failed", rank):
            reason = self._store.get(self._key("failed", rank)).decode()
            raise RuntimeError(f"process {rank} failed ({reason}): see what it logged last, then start again")
        count, now = self._store.add(self._key("alive", rank), 0), time.monotonic()
        if count != signs:
            return count, now
        if now - since > self._patience:
            raise RuntimeError(
                f"process {rank} has given no sign of life for {self._patience / 60:.3g} minutes; expected one every "
                f"{self._patience / _BEATS:.3g} seconds: see what it logged last, then start again"
            )
        return signs, since

    def _is(self, what: str, rank: int) -> bool:
        return self._store.check([self._key(what, rank)])

    def _key(self, what: str, rank: int) -> str:
        return f"dino_uad/work{self._number}/{what}/{rank}"
