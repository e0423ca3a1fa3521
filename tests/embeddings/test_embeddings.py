"""The backbone sees each image once, whatever happens between two runs."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from dino_uad import parallel
from dino_uad.describe import describe
from dino_uad.embeddings import dataset as dataset_module
from dino_uad.embeddings.dataset import EmbeddingDataset
from dino_uad.embeddings.embed import Embedder
from dino_uad.embeddings.identity import identify
from dino_uad.embeddings.loader import EmbeddingLoader
from dino_uad.handlers import ScanTally
from dino_uad.transforms.load import LoadScand
from dino_uad.transforms.orient import OrientScand
from dino_uad.transforms.resize import InPlaneResized
from helpers import backbone, embeddings, load_unit, notes_meetings, pictures, start_method


@pytest.fixture
def counted():
    """A backbone that counts the images it is given."""
    frozen = backbone()
    frozen.seen = 0

    def count(module, inputs):
        module.seen += len(inputs[0])

    frozen.register_forward_pre_hook(count)
    return frozen


def test_backbone_sees_each_image_once_however_many_epochs(tmp_path, counted):
    dataset = embeddings(tmp_path / "images", 7, backbone=counted, batch_size=3)
    loader = EmbeddingLoader(dataset, batch_size=2, shuffle=True)
    for epoch in range(3):
        loader.set_epoch(epoch)
        assert sum(len(batch["cls"]) for batch in loader) == 7
    assert counted.seen == 7


def test_values_are_the_backbones_in_half_precision(tmp_path):
    frozen = backbone()
    dataset = embeddings(tmp_path, 3, backbone=frozen)
    image = load_unit(dataset.data[1])["image"]
    expected, cls = frozen(image[None])
    assert dataset[1]["embedding"].dtype == torch.half
    torch.testing.assert_close(dataset[1]["embedding"], expected[0].half(), rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(dataset[1]["cls"], cls[0], rtol=1e-4, atol=1e-5)


def test_slices_of_a_volume_are_one_scan_and_pictures_of_a_patient_are_not(tmp_path):
    data = [{**entry, "group": "patient"} for entry in pictures(tmp_path, 3)]
    found = []
    for slices in (1, 2):
        dataset = EmbeddingDataset(data, lambda entry, slices=slices: [load_unit(entry)] * slices, backbone())
        tally = ScanTally(EmbeddingLoader(dataset, batch_size=2))
        count = len(dataset)
        tally.add({"item": torch.arange(count)}, torch.arange(count), torch.rand(count, 1, 28, 28), (2, 2))
        _, groups, _, scans = tally.gathered((2, 2))
        assert groups == ["patient"] * count
        found.append(scans)
    assert found == [[0, 1, 2], [0, 0, 1, 1, 2, 2]]


def test_the_size_that_is_told_is_that_of_the_slices(tmp_path, caplog):
    caplog.set_level("INFO")
    data = embeddings(tmp_path, 3, cache_dir=tmp_path / "cache")
    size = data[0]["embedding"].nbytes / 1e6
    assert caplog.text.count("in half precision") == 1
    assert f"a slice takes {size:.2g} MB in half precision, so at least {3 * size:.0f} MB in cache/" in caplog.text


def test_second_run_reads_the_cache(tmp_path, counted):
    first = embeddings(tmp_path / "images", 4, backbone=counted, cache_dir=str(tmp_path / "cache"))
    again = embeddings(tmp_path / "images", 4, backbone=counted, cache_dir=str(tmp_path / "cache"))
    assert all(torch.equal(a["embedding"], b["embedding"]) for a, b in zip(first, again, strict=True))
    assert counted.seen == 4


def test_the_same_steps_nested_otherwise_share_a_cache(tmp_path, counted):
    flat = [LoadScand("image"), OrientScand("image"), InPlaneResized("image", (28, 28))]
    for steps in (flat, [Compose(flat)], [Compose(flat[:2]), flat[2]]):
        data = pictures(tmp_path / "images", 3)
        assert len(EmbeddingDataset(data, Compose(steps), counted, cache_dir=str(tmp_path / "cache"))) == 3
    assert counted.seen == 3


def test_damaged_cache_file_is_made_again(tmp_path, counted):
    first = embeddings(tmp_path / "images", 4, backbone=counted, cache_dir=str(tmp_path / "cache"))
    expected = first[0]["embedding"]
    for file in (tmp_path / "cache").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-100])
    again = embeddings(tmp_path / "images", 4, backbone=counted, cache_dir=str(tmp_path / "cache"))
    assert torch.equal(again[0]["embedding"], expected)
    assert counted.seen == 8


def test_cache_knows_changed_images_and_changed_layers(tmp_path, counted):
    len(embeddings(tmp_path / "images", 2, backbone=counted, cache_dir=str(tmp_path / "cache")))
    pictures(tmp_path / "images", 2, seed=1)
    changed = EmbeddingDataset(
        [{"image": str(path)} for path in sorted((tmp_path / "images").iterdir())],
        load_unit,
        counted,
        cache_dir=str(tmp_path / "cache"),
    )
    len(changed)
    assert counted.seen == 4
    counted.layers = (1,)
    len(embeddings(tmp_path / "images", 2, backbone=counted, cache_dir=str(tmp_path / "cache")))
    assert counted.seen == 6


@pytest.mark.parametrize("cache", [None, "cache"])
def test_a_data_set_knows_what_its_slices_are_made_from(tmp_path, cache):
    def made(name: str, seed: int = 0, **kwargs) -> EmbeddingDataset:
        frozen, cache_dir = kwargs.pop("backbone", None) or backbone(), cache and tmp_path / cache
        return EmbeddingDataset(pictures(tmp_path / name, 3, seed), load_unit, frozen, cache_dir, **kwargs)

    one = made("a")
    assert made("elsewhere").identity == one.identity, "the same bytes at another place"
    others = [
        made("a", seed=1),
        made("b", backbone=backbone(precision="bfloat16")),
        made("b", held_out=0.5),
        EmbeddingDataset([], load_unit, backbone(), stand_in=made("b", held_out=0.5)),
    ]
    assert len({one.identity, *(other.identity for other in others)}) == 5


def test_cache_knows_the_precision(tmp_path):
    sets = [
        embeddings(tmp_path / "images", 2, backbone=backbone(precision=precision), cache_dir=str(tmp_path / "cache"))
        for precision in ("float32", "bfloat16")
    ]
    assert not torch.equal(*(dataset[0]["embedding"] for dataset in sets))


def test_a_rank_that_looks_later_embeds_its_share_all_the_same(tmp_path, counted, monkeypatch):
    ranks = [embeddings(tmp_path / "images", 6, backbone=counted, cache_dir=str(tmp_path / "cache")) for _ in range(2)]
    monkeypatch.setattr(parallel, "world_size", lambda: 2)
    monkeypatch.setattr(parallel, "share", list)
    monkeypatch.setattr(parallel, "rank", lambda: 0)
    with pytest.raises(RuntimeError, match="3 of 6 embeddings are not in"):
        ranks[0].build()  # alone: the other rank has written nothing when all are said to have
    monkeypatch.setattr(parallel, "rank", lambda: 1)
    assert len(ranks[1]) == 6
    assert counted.seen == 6


def test_ranks_wait_outside_of_collectives_for_one_that_reads_or_embeds_longer(tmp_path, monkeypatch):
    events = []
    notes_meetings(monkeypatch, dataset_module, events)
    record = lambda name, real: lambda *args: events.append(name) or real(*args)  # noqa: E731
    monkeypatch.setattr(dataset_module, "identify", record("read", dataset_module.identify))
    monkeypatch.setattr(Embedder, "__call__", record("embed", Embedder.__call__))
    for module in (parallel, parallel.division):
        monkeypatch.setattr(module, "gather_objects", record("collective", module.gather_objects))
    len(embeddings(tmp_path, 1, cache_dir=tmp_path / "cache"))
    reading, embedding = ["work", "read", "meet", "collective"], ["work", "embed", "meet", "collective"]
    assert events == reading + embedding
    events.clear()
    len(embeddings(tmp_path, 1, cache_dir=tmp_path / "cache"))
    assert events == [*reading, "work", "meet", "collective"], "others may have something to embed"


def test_a_volume_becomes_its_slices(tmp_path):
    entries = pictures(tmp_path, 2)
    slices = lambda entry: [load_unit(entry), load_unit(entry), load_unit(entry)]  # noqa: E731
    assert len(EmbeddingDataset(entries, slices, backbone())) == 6


def test_unreadable_image_raises_or_is_skipped_by_name(tmp_path, caplog):
    entries = pictures(tmp_path, 3)
    (tmp_path / "001.png").write_bytes(b"not a png")
    with pytest.raises(Exception, match=r"001\.png|identify"):
        len(EmbeddingDataset(entries, load_unit, backbone()))
    kept = EmbeddingDataset(entries, load_unit, backbone(), on_error="skip")
    assert len(kept) == 2
    assert "skipped 1" in caplog.text and "001.png" in caplog.text


def load_if_mounted(entry):
    if (Path(entry["image"]).parent / "unmounted").exists():
        raise OSError("the drive is gone")
    return load_unit(entry)


def rewritten_while_read(monkeypatch, path, change):
    """Change a file once it has been identified, before it is loaded."""
    read = EmbeddingDataset._embed_missing

    def embed(self, *args):
        change(path)
        return read(self, *args)

    monkeypatch.setattr(EmbeddingDataset, "_embed_missing", embed)


def brighter(path):
    state = path.stat()
    Image.fromarray(np.full((56, 56), 200, np.uint8)).save(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_no_image_is_kept_under_the_digest_of_another(tmp_path, monkeypatch, caplog, on_error):
    data, cache = pictures(tmp_path / "images", 4), str(tmp_path / "cache")
    path = tmp_path / "images/002.png"
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        rewritten_while_read(patch, path, brighter)
        made = EmbeddingDataset(data, load_unit, backbone(), cache, on_error=on_error)
        if on_error == "raise":
            with pytest.raises(RuntimeError, match=r"002\.png changed while it was read; .*: run again"):
                made.build()
        else:
            assert len(made) == 3 and "002.png changed while it was read" in caplog.text
    path.write_bytes(before)
    again = EmbeddingDataset(data, load_unit, backbone(), cache)
    fresh = EmbeddingDataset(data, load_unit, backbone())
    assert all(torch.equal(one["embedding"], two["embedding"]) for one, two in zip(again, fresh, strict=True))


def test_a_file_with_a_new_time_and_place_and_the_same_bytes_has_not_changed(tmp_path, monkeypatch):
    def copied(path):
        path.with_name("copy").write_bytes(path.read_bytes())
        path.with_name("copy").replace(path)

    data = pictures(tmp_path, 3)
    rewritten_while_read(monkeypatch, tmp_path / "001.png", copied)
    assert len(EmbeddingDataset(data, load_unit, backbone())) == 3


def test_images_are_those_whose_slices_are_here(tmp_path):
    """By their bytes: twice the same is one; what is set aside or was skipped is not among them."""
    data = pictures(tmp_path, 4)
    (tmp_path / "003.png").write_bytes((tmp_path / "000.png").read_bytes())
    numbers = [identify(entry).image for entry in data]
    assert len(set(numbers)) == 3
    assert EmbeddingDataset(data, load_unit, backbone()).images.tolist() == sorted(set(numbers))
    part = EmbeddingDataset(data[:3], load_unit, backbone(), held_out=0.3)
    aside = EmbeddingDataset([], load_unit, backbone(), stand_in=part)
    assert (part.images.tolist(), aside.images.tolist()) == (sorted(numbers[:2]), numbers[2:3])
    (tmp_path / "001.png").write_bytes(b"no picture")
    assert len(EmbeddingDataset(data[:3], load_unit, backbone(), on_error="skip").images) == 2


def test_what_was_skipped_is_tried_again(tmp_path, counted):
    entries = pictures(tmp_path / "images", 3)
    arguments = {"cache_dir": str(tmp_path / "cache"), "on_error": "skip"}
    (tmp_path / "images" / "unmounted").touch()
    with pytest.raises(ValueError, match="none of the 3 entries gave an image"):
        len(EmbeddingDataset(entries, load_if_mounted, counted, **arguments))
    (tmp_path / "images" / "unmounted").unlink()
    assert len(EmbeddingDataset(entries, load_if_mounted, counted, **arguments)) == 3


def count_first(entry):
    """Slices only of the first entry; each look at an entry leaves a mark."""
    with open(Path(entry["image"]).with_suffix(".seen"), "a") as file:
        file.write("x")
    return [load_unit(entry)] if entry["image"].endswith("000.png") else []


def test_an_entry_without_slices_is_not_looked_at_again(tmp_path, counted):
    entries = pictures(tmp_path, 3)
    for _ in range(2):
        assert len(EmbeddingDataset(entries, count_first, counted, cache_dir=str(tmp_path / "cache"))) == 1
    assert [path.read_text() for path in sorted(tmp_path.glob("*.seen"))] == ["x"] * 3


def test_equal_images_are_embedded_once(tmp_path, counted):
    entries = pictures(tmp_path / "images", 2)
    dataset = EmbeddingDataset([*entries, entries[0]], load_unit, counted, cache_dir=str(tmp_path / "cache"))
    assert len(dataset) == 3 and counted.seen == 2
    assert torch.equal(dataset[0]["embedding"], dataset[2]["embedding"])


def test_spawned_workers_are_handed_no_backbone(tmp_path):
    """As on Windows and macOS; a backbone with a hook, or on a GPU, could not be pickled, and would be slow to."""
    frozen = backbone()
    frozen.register_forward_pre_hook(lambda module, inputs: None)
    spawned = embeddings(tmp_path, 3, backbone=frozen, num_workers=1)
    with start_method("spawn"):
        spawned.build()
    assert torch.equal(spawned.batch([2, 0])["embedding"], embeddings(tmp_path, 3).batch([2, 0])["embedding"])


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="data list is empty"):
        len(EmbeddingDataset([], load_unit, backbone()))


def test_order_depends_on_seed_and_epoch_alone(tmp_path):
    dataset = embeddings(tmp_path, 6)

    def order(seed, epoch):
        loader = EmbeddingLoader(dataset, batch_size=1, shuffle=True, seed=seed)
        loader.set_epoch(epoch)
        return [float(batch["cls"][0, 0]) for batch in loader]

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert sorted(order(0, 3)) == sorted(order(1, 5))


def test_last_batch_is_dropped_only_behind_a_full_one(tmp_path):
    dataset = embeddings(tmp_path, 5)
    assert [len(b["cls"]) for b in EmbeddingLoader(dataset, 2, drop_last=True)] == [2, 2]
    assert [len(b["cls"]) for b in EmbeddingLoader(dataset, 8, drop_last=True)] == [5]
    assert dataset.batch([])["embedding"].shape[0] == 0


def test_empty_validation_takes_slices_that_training_sets_aside(tmp_path, caplog):
    train = embeddings(tmp_path, 10, held_out=0.2)
    valid = EmbeddingDataset([], load_unit, train.backbone, stand_in=train)
    everything = embeddings(tmp_path, 10, backbone=train.backbone)
    assert (len(train), len(valid)) == (8, 2)
    joined = torch.stack([record["embedding"] for dataset in (train, valid) for record in dataset])
    assert torch.equal(joined, torch.stack([record["embedding"] for record in everything]))
    assert "2 of the 10 normal slices" in caplog.text


def test_given_validation_images_are_used_and_an_empty_list_alone_is_an_error(tmp_path):
    train = embeddings(tmp_path / "train", 3)
    valid = embeddings(tmp_path / "valid", 2, backbone=train.backbone, stand_in=train)
    assert (len(train), len(valid)) == (3, 2)
    with pytest.raises(ValueError, match="data list is empty"):
        len(EmbeddingDataset([], load_unit, train.backbone))


def test_cache_key_of_a_transform_does_not_change_when_it_is_used(tmp_path):
    image = pictures(tmp_path, 1)[0]
    transform = Compose([LoadScand("image"), OrientScand("image"), InPlaneResized("image", (28, 28))])
    before = describe(transform)
    transform(dict(image))
    assert describe(transform) == before
    assert describe(Compose([LoadScand("image"), InPlaneResized("image", (14, 14))])) != before


def test_a_gpus_batches_are_read_ahead_in_their_order(tmp_path, monkeypatch):
    data = embeddings(tmp_path, 5)
    expected = list(EmbeddingLoader(data, 2, shuffle=True))
    pinned = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: (pinned.append(tensor), tensor)[1])
    data.device = torch.device("cuda")
    found = list(EmbeddingLoader(data, 2, shuffle=True))
    assert len(found) == 3 and len(pinned) == sum(map(len, found))
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in other)
    monkeypatch.setattr(EmbeddingDataset, "batch", lambda *_: (_ for _ in ()).throw(OSError("disk gone")))
    with pytest.raises(OSError, match="disk gone"):
        list(EmbeddingLoader(data, 2))
