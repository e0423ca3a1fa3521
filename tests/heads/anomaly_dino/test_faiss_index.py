"""The approximate search: how near it comes to the exact one, and that a model file carries it whole."""

import sys

import numpy as np
import pytest
import torch

from dino_uad.heads.anomaly_dino import AnomalyDinoHead, encode_rows, faiss_index, nearest_neighbours
from dino_uad.heads.anomaly_dino.faiss_index import FaissIndex
from helpers import notes_meetings


def clustered(rows: int, channels: int = 32, seed: int = 0) -> torch.Tensor:
    """Rows around 50 centres, as patches have more neighbours of their own kind than of others."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(50, channels, generator=torch.Generator().manual_seed(9))
    chosen = torch.randint(50, (rows,), generator=generator)
    return centres[chosen] + 0.5 * torch.randn(rows, channels, generator=generator)


@pytest.fixture(scope="module")
def searched():
    pytest.importorskip("faiss", reason="pip install -r requirements-faiss.txt")
    bank, queries = encode_rows(clustered(20_000)), clustered(300, seed=1)
    index = FaissIndex(32)
    index.build(bank)
    return index, bank, queries


def test_nearly_every_nearest_row_is_found_and_its_distance_is_exact(searched):
    index, bank, queries = searched
    exact, rows = nearest_neighbours(queries, bank, 3)
    found = index.search(queries, bank, 3)
    assert found.shape == exact.shape and (found.diff(dim=1) >= 0).all()
    assert (found >= exact - 1e-5).all(), "nearer than the nearest"
    assert (found[:, 0] <= exact[:, 0] + 1e-5).float().mean() > 0.95
    assert np.corrcoef(found[:, 0], exact[:, 0])[0, 1] > 0.99
    sample = rows[:, 0][(found[:, 0] <= exact[:, 0] + 1e-5)]
    own = index.search(bank[sample].float(), bank, 1)
    torch.testing.assert_close(own, torch.zeros_like(own), rtol=0, atol=1e-5)  # every row finds itself


def test_rebuilt_from_its_tensors_it_finds_what_faiss_itself_finds(searched):
    """Codes, cells and ids against an index that faiss trained and filled on its own, which knows no candidates."""
    import faiss

    index, bank, queries = searched
    unit = torch.nn.functional.normalize(bank.float(), dim=1).numpy()
    query = torch.nn.functional.normalize(queries, dim=1).numpy()
    own = index._as_faiss()
    theirs = faiss.clone_index(own)
    theirs.reset()
    theirs.add(unit)
    theirs.nprobe = own.nprobe
    (distance, rows), (expected, expected_rows) = own.search(query, 5), theirs.search(query, 5)
    np.testing.assert_allclose(distance, expected, rtol=1e-4, atol=1e-5)
    assert (rows == expected_rows).mean() > 0.98  # equal codes may change places


def head_with(bank_images: int, **kwargs) -> AnomalyDinoHead:
    head = AnomalyDinoHead(32, **kwargs)
    rows = clustered(bank_images * 64).view(bank_images, 8, 8, 32).movedim(-1, 1)
    head.fit_batch(rows)
    head.end_epoch()
    return head


def test_scores_of_a_head_are_near_the_exact_ones_and_survive_the_model_file(searched, tmp_path):
    exact, near = head_with(60), head_with(60, index="faiss")
    query = clustered(128, seed=2).view(2, 8, 8, 32).movedim(-1, 1)
    torch.testing.assert_close(near.score(query), exact.score(query), rtol=0.05, atol=0.02)
    torch.save(near.state_dict(), tmp_path / "head.pt")
    loaded = AnomalyDinoHead(32, index="faiss")
    loaded.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
    assert torch.equal(loaded.score(query), near.score(query))
    with pytest.raises(RuntimeError, match="approximate"):
        AnomalyDinoHead(32).load_state_dict(near.state_dict())


def test_a_bank_of_a_few_rows_needs_no_index_but_has_one(searched):
    few = AnomalyDinoHead(32, index="faiss")
    few.fit_batch(clustered(4).view(1, 2, 2, 32).movedim(-1, 1))
    few.end_epoch()
    query = clustered(4, seed=3).view(1, 2, 2, 32).movedim(-1, 1)
    exact = AnomalyDinoHead(32)
    exact.load_state_dict({"bank": few.bank})
    torch.testing.assert_close(few.score(query), exact.score(query), rtol=1e-5, atol=1e-6)


def test_a_damaged_index_is_an_error(searched):
    head = head_with(4, index="faiss")
    state = head.state_dict()
    state["approximate.cells"][0] = 10_000
    damaged = AnomalyDinoHead(32, index="faiss")
    damaged.load_state_dict(state)
    with pytest.raises(ValueError, match="damaged: fit again"):
        damaged.score(torch.zeros(1, 32, 2, 2))


def test_without_faiss_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"requirements-faiss\.txt"):
        AnomalyDinoHead(32, index="faiss")
    assert AnomalyDinoHead(32).approximate is None


def test_wrong_index_is_named():
    with pytest.raises(ValueError, match="'hnsw'"):
        AnomalyDinoHead(32, index="hnsw")


def test_others_wait_outside_of_collectives_while_the_first_rank_builds(monkeypatch):
    pytest.importorskip("faiss", reason="pip install -r requirements-faiss.txt")
    events, build = [], faiss_index._build
    notes_meetings(monkeypatch, faiss_index, events)
    monkeypatch.setattr(faiss_index, "_build", lambda bank: events.append("build") or build(bank))
    monkeypatch.setattr(faiss_index, "broadcast", lambda tensor: events.append("collective") or tensor)
    FaissIndex(32).build(encode_rows(clustered(200)))
    assert events == ["work", "build", "meet", *["collective"] * 4]
