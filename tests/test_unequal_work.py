"""Who is done waits for the others however long they work, and not for the dead."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from dino_uad import parallel, unequal_work
from dino_uad.data import datalist, folder_list, verify
from helpers import labelled_pictures
from workflows import run_in_group

HOUR = 3600.0


@pytest.fixture
def group(monkeypatch):
    """The first of two ranks, whose store and clock are the test's; ``asleep`` is called at each pause."""
    store = dist.HashStore()
    now, pauses = [0.0], []
    made = SimpleNamespace(store=store, asleep=lambda: None, key=lambda what: f"dino_uad/work7/{what}/1")

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += 60.0
        made.asleep()

    monkeypatch.setattr(unequal_work, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    monkeypatch.setattr(unequal_work, "_numbers", iter([7]))
    monkeypatch.setattr(parallel.group, "_patience", 600.0)
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    for name, value in {"is_distributed": True, "rank": 0, "world_size": 2}.items():
        monkeypatch.setattr(parallel, name, lambda value=value: value)
    made.hours, made.pauses = lambda: now[0] / HOUR, pauses
    return made


def meet() -> None:
    with unequal_work.unequal_work() as together:
        together()


def test_one_that_lives_is_waited_for_however_long_it_works(group):
    def works() -> None:
        group.store.add(group.key("alive"), 1)
        if group.hours() > 30:
            group.store.set(group.key("here"), "yes")

    group.asleep = works
    meet()
    assert group.hours() > 30 and max(group.pauses) <= 1, "looks often enough"
    assert group.store.add("dino_uad/work7/alive/0", 0) >= 1, "gave no sign of life of its own"


def test_one_without_a_sign_of_life_is_dead(group):
    group.asleep = lambda: group.store.add(group.key("alive"), 1) if group.hours() < 5 else None
    with pytest.raises(RuntimeError, match="process 1 has given no sign of life for 10 minutes; expected one e"):
        meet()
    assert 5 < group.hours() < 5.5


def test_one_that_never_began_is_dead(group):
    with pytest.raises(RuntimeError, match="process 1 has given no sign of life"):
        meet()


def test_where_the_store_is_gone_nobody_can_meet(group, monkeypatch):
    def gone(*_):
        raise dist.DistNetworkError("Connection reset by peer")

    store = SimpleNamespace(set=gone, add=gone, check=gone)
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    with pytest.raises(RuntimeError, match=r"meet through is gone \(Connection reset by peer\)"):
        meet()


def test_alone_there_is_nobody_to_wait_for():
    meet()


def in_a_group(work: Callable[[], None], patience: float | None = None) -> None:
    parallel.start_process_group("cpu")
    if patience is not None:
        parallel.group._patience = patience
    with unequal_work.unequal_work() as together:
        if parallel.rank() == 1:
            work()
        together()
    (total,) = parallel.all_reduce_sum(torch.ones(1))
    assert total == parallel.world_size()
    parallel.stop_process_group()


def fails() -> None:
    raise ValueError("no image is left")


def others_learn(message: str, *arguments) -> None:
    with pytest.raises(RuntimeError, match=message):
        in_a_group(*arguments)


def nothing() -> None:
    """The work of the one that is done at once."""


def test_ranks_meet():
    assert run_in_group(3, partial(in_a_group, nothing)) == [0, 0, 0]


def test_a_rank_that_dies_is_noticed():
    learn = partial(others_learn, "process 1 has given no sign of life", fails, 2.0)
    assert run_in_group(2, learn, {1: partial(in_a_group, partial(os._exit, 3))}) == [0, 3]


def test_a_rank_that_fails_says_so():
    learn = partial(others_learn, r"process 1 failed \(no image is left\)", fails)
    assert run_in_group(2, learn, {1: partial(in_a_group, fails)}) == [0, 1]


def listed_in_a_group(root: str, folder: str) -> None:
    with parallel.process_group("cpu"):
        if parallel.rank() > 0:
            verify.has_anomaly = folder_list.understand = fails
        with (Path(folder) / f"{parallel.rank()}.json").open("w") as file:
            json.dump([datalist(root, split) for split in ("train", "test")], file)


def test_the_first_rank_reads_masks_and_lists_images_for_all(tmp_path):
    labelled_pictures(tmp_path / "data")
    assert run_in_group(3, partial(listed_in_a_group, str(tmp_path / "data"), str(tmp_path))) == [0, 0, 0]
    first, second, third = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3))
    assert first == second == third and [len(split) for split in first] == [4, 4]


def refused_in_a_group(root: str) -> None:
    first = os.environ["RANK"] == "0"
    kind, message = (ValueError, "split is 'tests'") if first else (RuntimeError, "process 0 failed .split is 'tests'")
    with parallel.process_group("cpu"):
        with pytest.raises(kind, match=message):
            datalist(root, "tests")
        parallel.gather_objects(None)  # the first one keeps the store


def test_why_the_first_rank_cannot_list_images_is_told_to_all(tmp_path):
    assert run_in_group(2, partial(refused_in_a_group, str(tmp_path))) == [0, 0]
