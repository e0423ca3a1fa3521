"""``python -m dino_uad cache``: what it shows, and that it removes only what nobody needs."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dino_uad.cli import main
from dino_uad.embeddings import inventory
from dino_uad.embeddings.identity import code_version
from dino_uad.embeddings.store import EmbeddingStore, shards
from dino_uad.files import DAY, HOST, PART


def store(folder, code: str, keys: str) -> EmbeddingStore:
    facts = {"backbone": {"arch": "tiny", "layers": [3]}, "code": code}
    made = EmbeddingStore(folder, facts)
    made.prepare()
    for key in keys:
        made.append(key, {"embedding": torch.zeros(2, 8, 4, 4).half(), "cls": torch.zeros(2, 8)})
        made.flush()
    return made


def age(path, days: float) -> None:
    os.utime(path, (time.time() - days * DAY,) * 2)


def run(capfd, *words) -> dict:
    main(["cache", *map(str, words), "--json"])
    return json.loads(capfd.readouterr().out)


def test_list_says_what_is_there(tmp_path, capfd):
    store(tmp_path, code_version(), "abc")
    old = store(tmp_path, "older", "a")
    for path in old.folder.iterdir():
        age(path, 4)
    found = {item["current"]: item for item in run(capfd, "list", tmp_path)["stores"]}
    assert {key: found[True][key] for key in ("layers", "embedding", "entries", "slices")} == {
        "layers": [3],
        "embedding": "8×4×4",
        "entries": 3,
        "slices": 6,
    }
    assert found[False]["name"] == old.folder.name and found[False]["days_unused"] == pytest.approx(4, abs=0.01)
    assert found[True]["bytes"] == sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) - sum(
        path.stat().st_size for path in shards(old.folder)
    )
    main(["cache", "list", str(tmp_path)])
    assert "made by another version" in capfd.readouterr().out


def test_prune_removes_what_is_of_no_use_and_keeps_the_rest(tmp_path, capfd):
    current, other = store(tmp_path, code_version(), "abcd"), store(tmp_path, "older", "ab")
    unused, damaged, *kept = shards(current.folder)
    age(unused, 31)
    damaged.write_bytes(b"cut")
    leftover = current.folder / f".{HOST}01234567{PART}x.safetensors"
    leftover.write_bytes(b"half")
    early = tmp_path / f"{'0' * 32}.safetensors"  # as versions before 0.2 wrote them
    save_file({"embedding": torch.zeros(1).half(), "cls": torch.zeros(1)}, early)
    for path in other.folder.iterdir():
        age(path, 2)
    would = run(capfd, "prune", tmp_path, "--dry_run")["files"]
    assert unused.exists() and early.exists()
    done = run(capfd, "prune", tmp_path)
    assert done["files"] == would and len(would) == 5
    assert shards(current.folder) == kept and not leftover.exists() and not early.exists()
    assert not other.folder.exists()
    assert run(capfd, "prune", tmp_path)["files"] == []


def test_prune_to_a_size_takes_what_is_unused_longest(tmp_path, capfd):
    made = store(tmp_path, code_version(), "abcd")
    for days, path in enumerate(shards(made.folder)):
        age(path, days)
    newest, second, *_ = shards(made.folder)
    size = newest.stat().st_size
    run(capfd, "prune", tmp_path, "--max_gb", 2.5 * size / 1e9)
    assert shards(made.folder) == [newest, second]


@pytest.mark.parametrize("option", ["--days", "--max_gb"])
def test_numbers_below_zero_remove_nothing(tmp_path, option):
    made = store(tmp_path, code_version(), "ab")
    with pytest.raises(ValueError, match=f"{option.removeprefix('--')} is -1; expected a number of at least 0"):
        main(["cache", "prune", str(tmp_path), option, "-1"])
    assert len(shards(made.folder)) == 2


def test_prune_leaves_a_run_that_has_just_begun(tmp_path, capfd):
    made = store(tmp_path, code_version(), "")
    run(capfd, "prune", tmp_path, "--days", 0)
    assert (made.folder / "store.json").exists()


def test_a_wrong_folder_is_named(tmp_path, capfd):
    with pytest.raises(FileNotFoundError, match="by default the folder cache of a bundle"):
        main(["cache", "list", str(tmp_path / "none")])


def test_what_may_not_be_read_or_removed_stops_nothing_else(tmp_path, capfd, monkeypatch):
    made = store(tmp_path, code_version(), "abc")
    hidden, *others = shards(made.folder)
    read, unlink = inventory.read_contents, Path.unlink

    def refuse(path, *args, **kwargs):
        if path == hidden:
            raise PermissionError(13, "Permission denied", str(path))
        return (unlink if args or kwargs else read)(path, *args, **kwargs)

    monkeypatch.setattr(inventory, "read_contents", refuse)
    assert run(capfd, "list", tmp_path)["stores"][0]["entries"] == 2
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match=rf"1 files could not be removed, the first .*{hidden.name} \(Permission denied"):
        main(["cache", "prune", str(tmp_path), "--max_gb", "0"])
    assert shards(made.folder) == [hidden] and others


def test_prune_leaves_what_is_not_of_the_cache(tmp_path, capfd):
    made = store(tmp_path, "older", "a")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "store.json").write_text("{}")
    foreign = [
        tmp_path / "student.safetensors",
        tmp_path / f"{'1' * 32}.safetensors",
        tmp_path / f"{'2' * 32}.safetensors",
        tmp_path / "models" / f"{'0' * 16}.safetensors",
        made.folder / "weights.safetensors",
    ]
    for path in foreign[:2]:
        save_file({"blocks.0.weight": torch.zeros(1)}, path)
    for path in foreign[2:]:
        path.write_bytes(b"cut")
    for path in tmp_path.rglob("*"):
        age(path, 99)
    assert len(run(capfd, "prune", tmp_path, "--max_gb", 0)["files"]) == 1
    assert all(path.exists() for path in foreign)
    assert shards(made.folder) == []


@pytest.mark.parametrize("facts", ["[]", "null", "3", '{"backbone": null}', '{"backbone": []}', "{", "\udcff"])
def test_a_store_that_says_nothing_of_itself_stops_no_other(tmp_path, capfd, facts):
    good, odd = store(tmp_path, code_version(), "ab"), store(tmp_path, "older", "a")
    (odd.folder / "store.json").write_bytes(facts.encode(errors="surrogateescape"))
    found = {item["name"]: item for item in run(capfd, "list", tmp_path)["stores"]}
    assert found[good.folder.name]["entries"] == 2
    assert (found[odd.folder.name]["layers"], found[odd.folder.name]["current"]) == ([], False)
    for path in odd.folder.iterdir():
        age(path, 2)
    run(capfd, "prune", tmp_path)
    assert len(shards(good.folder)) == 2 and not odd.folder.exists()


@pytest.mark.parametrize("moment", ["before", "between"])
@pytest.mark.parametrize("verb", ["list", "prune"])
def test_what_vanishes_while_it_is_looked_at_is_left_out(tmp_path, capfd, monkeypatch, verb, moment):
    made = store(tmp_path, code_version(), "abc")
    gone, *others = shards(made.folder)
    read = inventory.read_contents

    def vanish(path):
        if path == gone:
            path.unlink()
        return read(path)

    if moment == "before":
        gone.unlink()
        monkeypatch.setattr(inventory, "shards", lambda folder: [gone, *others])
    else:
        monkeypatch.setattr(inventory, "read_contents", vanish)
    found = run(capfd, verb, tmp_path)
    assert found["stores"][0]["entries"] == 2 if verb == "list" else found["files"] == []
