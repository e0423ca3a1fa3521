"""The store of embeddings: what is read is what was written, whoever writes, and whenever somebody is killed."""

import errno
import mmap
import os
import random
import signal
import threading
import time
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from dino_uad.embeddings import shard
from dino_uad.embeddings import store as store_module
from dino_uad.embeddings.shard import read_contents, write_shard
from dino_uad.embeddings.store import EmbeddingStore, MemoryStore, shards
from helpers import held_megabytes
from workflows import start

FACTS = {"backbone": {"arch": "tiny"}, "code": "1"}
A, B = (f"{letter * 16}.safetensors" for letter in "ab")


def record(key: str, slices: int, size: int = 4) -> dict[str, torch.Tensor]:
    """What is stored under a key follows from the key, so that a reader can tell right from wrong."""
    if not slices:
        return {}
    generator = torch.Generator().manual_seed(int(key))
    return {
        "embedding": torch.randn(slices, 3, size, size, generator=generator).half(),
        "cls": torch.randn(slices, 3, generator=generator),
        "foreground": torch.rand(slices, 1, size, size, generator=generator) < 0.5,
    }


def whole(store, place) -> dict[str, torch.Tensor]:
    return store.read([(place.shard, place.start + row) for row in range(place.count)]) if place.count else {}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    shard_bytes=st.sampled_from([1, 1000, 1 << 20]),
    seed=st.integers(0, 9),
    in_memory=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_any_slices_in_any_order(tmp_path_factory, counts, shard_bytes, seed, in_memory):
    folder = tmp_path_factory.mktemp("store")
    writer = MemoryStore() if in_memory else EmbeddingStore(folder, FACTS)
    old, store_module.SHARD_BYTES = store_module.SHARD_BYTES, shard_bytes
    try:
        for key, count in enumerate(counts):
            writer.append(str(key), record(str(key), count))
        writer.flush()
    finally:
        store_module.SHARD_BYTES = old
    reader = writer if in_memory else EmbeddingStore(folder, FACTS)
    places = reader.find(map(str, range(len(counts) + 1)))
    assert {key: place.count for key, place in places.items()} == {str(k): c for k, c in enumerate(counts)}
    chosen = random.Random(seed).sample([(k, r) for k, count in enumerate(counts) for r in range(count)], sum(counts))
    if not chosen:
        return
    found = reader.read([(places[str(k)].shard, places[str(k)].start + row) for k, row in chosen])
    rows = [{name: value[row] for name, value in record(str(k), counts[k]).items()} for k, row in chosen]
    assert_equal(found, {name: torch.stack([row[name] for row in rows]) for name in rows[0]})


def test_embeddings_of_another_size_or_without_foreground_go_to_another_file(tmp_path):
    store = EmbeddingStore(tmp_path, FACTS)
    records = {"1": record("1", 2), "2": {}, "3": record("3", 1, size=5), "4": record("4", 1, size=5)}
    records["4"].pop("foreground")
    for key, one in records.items():
        store.append(key, one)
    store.flush()
    assert sorted([key for key, _ in read_contents(path)] for path in shards(store.folder)) == [
        ["1", "2"],
        ["3"],
        ["4"],
    ]
    for key, place in store.find(records).items():
        assert_equal(whole(store, place), records[key])


def test_a_shard_is_a_file_of_the_safetensors_library(tmp_path):
    records = {"1": record("1", 2), "2": {}, "3": record("3", 1)}
    write_shard(tmp_path / "a.safetensors", records)
    found = load_file(tmp_path / "a.safetensors")
    assert len(found.pop("crc32")) == 3
    assert_equal(found, {name: torch.cat([records["1"][name], records["3"][name]]) for name in records["1"]})
    ours = (tmp_path / "a.safetensors").read_bytes()
    start = 8 + int.from_bytes(ours[:8], "little")
    theirs = save(load_file(tmp_path / "a.safetensors"))
    assert start % 8 == 0 and ours[start:] == theirs[8 + int.from_bytes(theirs[:8], "little") :]


def test_several_shards_are_written_at_once_and_a_full_disk_is_told_of(tmp_path, monkeypatch):
    together, begun = threading.Barrier(store_module.WRITERS, timeout=30), []

    def meet(path, records):
        begun.append(path.name)
        if together.wait() == 0:  # one of them, once all have begun
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "write_shard", meet)
    monkeypatch.setattr(store_module, "SHARD_BYTES", 1)
    store = EmbeddingStore(tmp_path, FACTS)
    for key in range(store_module.WRITERS):
        store.append(str(key), record(str(key), 1))
    with pytest.raises(OSError, match="No space left"):
        store.flush()
    assert len(set(begun)) == store_module.WRITERS


def test_a_shard_cut_anywhere_is_made_again(tmp_path):
    store = EmbeddingStore(tmp_path, FACTS)
    path = store.folder / A
    write_shard(path, {"1": record("1", 1)})
    content = path.read_bytes()
    for length in [*range(0, 24), *range(24, len(content), 17), len(content) - 1]:
        path.write_bytes(content[:length])
        assert store.find(["1"]) == {}, length
        assert not path.exists(), length
    path.write_bytes(content)
    assert_equal(whole(store, store.find(["1"])["1"]), record("1", 1))


@pytest.mark.parametrize("bit", [0, 6])
def test_no_changed_byte_is_read_in_silence(bit, tmp_path):
    records = {"1": record("1", 2), "2": record("2", 3), "3": {}, "4": record("4", 1)}
    path = EmbeddingStore(tmp_path, FACTS).folder / A
    write_shard(path, records)
    content = path.read_bytes()
    outcomes = set()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        store = EmbeddingStore(tmp_path, FACTS)
        found = store.find(records)
        try:
            for key, one in found.items():
                assert_equal(whole(store, one), records[key])
            outcomes.add(f"{len(found)} found")
        except ValueError as error:
            assert "damaged" in str(error) and "start the run again" in str(error)
            outcomes.add("refused")
    # Any byte but 0 is a true bool, so some changes are none.
    assert outcomes - {"4 found"} == {"0 found", "refused"}


def test_what_disappears_while_it_is_read_is_named(tmp_path):
    store = EmbeddingStore(tmp_path, FACTS)
    store.append("1", record("1", 1))
    store.flush()
    place = store.find(["1"])["1"]
    shards(store.folder)[0].unlink()
    with pytest.raises(FileNotFoundError, match=f"{place.shard} is gone .* start it again"):
        whole(store, place)


def test_what_disappears_between_the_two_times_that_the_library_opens_it_is_gone(tmp_path, monkeypatch):
    store = EmbeddingStore(tmp_path, FACTS)

    def torch_opens(*_):
        raise RuntimeError("unable to open file <a> in read-only mode: No such file or directory (2)")

    for step in ("find", "read"):
        write_shard(store.folder / A, {"1": record("1", 1)})
        with monkeypatch.context() as patch:
            patch.setattr(shard, "safe_open", lambda path, framework: (path.unlink(), torch_opens()))
            if step == "find":
                assert store.find(["1"]) == {}
            else:
                with pytest.raises(FileNotFoundError, match=r"is gone .* start it again"):
                    store.read([(A, 0)])
    # Any other trouble of torch's is not taken for that.
    write_shard(store.folder / A, {"1": record("1", 1)})
    monkeypatch.setattr(shard, "safe_open", torch_opens)
    with pytest.raises(RuntimeError, match="unable to open"):
        store.find(["1"])


def test_files_of_others_in_a_store_are_neither_read_nor_removed(tmp_path):
    store = EmbeddingStore(tmp_path, FACTS)
    store.prepare()
    (store.folder / "weights.safetensors").write_bytes(b"cut")
    assert store.find(["1"]) == {} and (store.folder / "weights.safetensors").exists()


def test_no_thread_is_left_of_what_was_written(tmp_path):
    store = EmbeddingStore(tmp_path, FACTS)
    before = threading.active_count()
    for key in ("1", "2"):
        store.append(key, record(key, 1))
        store.flush()
    assert threading.active_count() == before and len(store.find(["1", "2"])) == 2


def write_forever(folder, first):
    store_module.SHARD_BYTES = 20_000
    store = EmbeddingStore(folder, FACTS)
    store.prepare()
    for key in range(first, first + 100_000):
        store.append(str(key), record(str(key), 1 + key % 3, size=16))


def test_two_writers_killed_at_random_moments_leave_nothing_wrong(tmp_path):
    chance = random.Random(0)
    for round in range(5):
        writers = [start(write_forever, tmp_path, 1_000_000 * (2 * round + i)) for i in range(2)]
        folder = EmbeddingStore(tmp_path, FACTS).folder
        before, until = len(shards(folder)), time.monotonic() + 60
        while len(shards(folder)) < before + 3 and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.05)
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
        assert len(shards(folder)) > before
    store = EmbeddingStore(tmp_path, FACTS)
    keys = [key for path in shards(store.folder) for key, _ in read_contents(path)]
    assert len(keys) == len(set(keys)) > 100
    places = store.find(keys)
    for key in chance.sample(sorted(keys), 100):
        assert_equal(whole(store, places[key]), record(key, 1 + int(key) % 3, size=16))
    store.prepare()
    assert not [path for path in store.folder.iterdir() if path.name.startswith(".")]


def test_reading_everything_leaves_nothing_in_memory(tmp_path):
    store = EmbeddingStore(tmp_path, FACTS)
    values = torch.arange(64 * 2**18).view(64, 1, 512, 512).half()  # 32 MB
    for part in (A, B):
        write_shard(store.folder / part, {part: {"embedding": values}})

    def read() -> None:
        for row in torch.randperm(64).tolist():
            assert torch.equal(store.read([(A, row), (B, row)])["embedding"][1], values[row])

    read()
    assert held_megabytes(read) < 12


def test_an_older_shard_stays_used_while_its_entries_are_asked_for(tmp_path, monkeypatch):
    store = EmbeddingStore(tmp_path, FACTS)
    for key in ("1", "2"):
        store.append(key, record(key, 1))
        store.flush()
    for path in shards(store.folder):
        os.utime(path, (0, 0))
    used = store.find(["1"])["1"].shard
    assert {path.name: path.stat().st_mtime > 0 for path in shards(store.folder)}[used]
    assert sum(path.stat().st_mtime > 0 for path in shards(store.folder)) == 1
    # A fit may be older than what is taken for unused: what it reads says so again, an hour later.
    os.utime(store.folder / used, (0, 0))
    store.read([(used, 0)])
    assert (store.folder / used).stat().st_mtime == 0
    monkeypatch.setattr(store_module, "TOUCH_SECONDS", 0.0)
    store.read([(used, 0)])
    assert (store.folder / used).stat().st_mtime > 0


def test_what_nobody_can_write_is_an_error_before_the_backbone_runs(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="choose another folder"):
        EmbeddingStore(tmp_path / "file", FACTS).prepare()
    cannot = mock.Mock(side_effect=OSError(errno.ENODEV, "No such device"))
    with mock.patch.object(mmap, "mmap", cannot), pytest.raises(OSError, match=r"cannot be mapped .*No such device"):
        EmbeddingStore(tmp_path / "drive", FACTS).prepare()
