from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from dino_uad import processor
from dino_uad.heads.anomaly_dino import fastest_pass, first_pass, folded_pass, nearest, two_pass
from dino_uad.heads.anomaly_dino.nearest import encode_rows, nearest_neighbours, unit_rows


def _others(channels):
    return _features(50, channels, seed=9, clusters=3)


def _basis(channels):
    """The directions of :func:`_others` ``[channels,channels]``, the longest first."""
    return np.linalg.svd(_others(channels).double().numpy())[2]


def _folded(queries):
    """Along directions of other rows than those of the bank, which must not matter."""
    return folded_pass.FoldedPass(queries, folded_pass.directions(_others(queries.shape[1]), 8))


PASSES = [first_pass.Bfloat16Pass, first_pass.Int8Pass, _folded]
SEARCHES = [nearest._scan, *(partial(nearest._two_pass, first=coarse) for coarse in PASSES)]


def _features(n, channels=32, seed=0, clusters=None):
    generator = torch.Generator().manual_seed(seed)
    if clusters is None:
        return torch.randn(n, channels, generator=generator)
    centres = torch.randn(clusters, channels, generator=generator)
    pick = torch.randint(clusters, (n,), generator=generator)
    return centres[pick] + 0.1 * torch.randn(n, channels, generator=generator)


def _exact(queries, bank, k=1):
    distances = cdist(queries.double().numpy(), bank.double().numpy(), "cosine")
    return np.sort(distances, axis=1)[:, :k]


@pytest.fixture
def small_blocks(monkeypatch):
    """Run every path on small inputs: several query blocks, scan blocks, sections and a ragged end."""
    for owner, name, value in (
        (nearest, "QUERIES", 50),
        (nearest, "_SCANNED", {"cpu": 64}),
        (first_pass, "SLAB", 8),
        (folded_pass, "SLAB", 4),
        (first_pass, "GROUP", 4),
    ):
        monkeypatch.setattr(owner, name, value)


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 5), st.integers(0, 1000))
def test_equals_scipy_in_float64(n_queries, n_rows, k, seed):
    queries, features = _features(n_queries, 384, seed), 7 * _features(n_rows, 384, seed + 1)
    distance, index = nearest_neighbours(queries, encode_rows(features), k)
    assert distance.shape == index.shape == (n_queries, min(k, n_rows))
    np.testing.assert_allclose(distance, _exact(queries, features, k), atol=1e-5)
    np.testing.assert_allclose(nearest_neighbours(queries, features, k)[0], _exact(queries, features, k), atol=1e-6)


def test_rows_nearer_than_a_product_can_order_keep_their_numbers():
    queries = _features(3, 384)
    bank = (queries[:, None] + 1e-3 * _features(40, 384, seed=1)).flatten(0, 1)
    distance, index = nearest_neighbours(queries, bank, 8)
    exact = cdist(queries.double().numpy(), bank.double().numpy(), "cosine")
    np.testing.assert_allclose(distance, np.take_along_axis(exact, index.numpy(), axis=1), rtol=1e-2)


@pytest.mark.parametrize("n_rows", [1, 31, 32, 33, 63, 64, 65, 517])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("clusters", [None, 5])
def test_both_searches_cross_block_boundaries(small_blocks, n_rows, k, clusters):
    queries, bank = _features(70, seed=1, clusters=clusters), encode_rows(_features(n_rows, clusters=clusters))
    k = min(k, n_rows)
    expected = _exact(queries, unit_rows(bank), k)
    for search in SEARCHES:
        similarity, index = search(unit_rows(queries), bank, k)
        np.testing.assert_allclose(1 - similarity, expected, atol=1e-6)
        found = (unit_rows(queries)[:, None] * unit_rows(bank)[index]).sum(2)
        torch.testing.assert_close(found, similarity, rtol=0, atol=1e-6)
        assert all(len(set(row)) == k for row in index.tolist())


def _folded_well(queries):
    rows = _features(20_064, 384, seed=4, clusters=400)[64:]
    return folded_pass.FoldedPass(queries, folded_pass.directions(rows, 320))


@pytest.mark.parametrize("coarse", [first_pass.Bfloat16Pass, first_pass.Int8Pass, _folded_well])
def test_two_pass_excludes_most_groups_but_never_a_neighbour(coarse, monkeypatch):
    features = _features(20_064, 384, seed=4, clusters=400)
    queries, bank = features[:64], encode_rows(features[64:])
    scored, plain = [], two_pass._Candidates._similarities
    monkeypatch.setattr(
        two_pass._Candidates, "_similarities", lambda self, *of: scored.append(len(of[0])) or plain(self, *of)
    )
    similarity, _, crowded = two_pass.search(unit_rows(queries), bank, 1, coarse)
    assert not crowded.any() and sum(scored) < 0.01 * 64 * len(bank)
    np.testing.assert_allclose(1 - similarity, _exact(queries, unit_rows(bank)), atol=1e-6)


@settings(max_examples=25)
@given(st.integers(0, 1000), st.sampled_from([1, 5, 30, 400]), st.floats(0, 30), st.booleans())
@pytest.mark.parametrize("coarse", PASSES)
def test_bounds_are_above_the_products(coarse, seed, clusters, spike, vnni):
    """Of rows of any shape, those with one large component included, against products in float64; and not far above."""
    queries, rows = (_features(n, 96, seed + n, clusters) for n in (40, 300))
    queries[:, 3] += spike
    rows[::7, 5] -= spike
    bank = encode_rows(rows)
    exact = unit_rows(bank).double() @ unit_rows(queries).double().T
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(first_pass, "int_mm_is_fast", lambda: vnni and processor.int_mm_is_exact())
        found, query, row = (
            coarse(unit_rows(queries)).bounds(first_pass.unit(bank)[0]).reaching(torch.full((40,), -9.0))
        )
    bounds = torch.full((300, 40), torch.nan).index_put((row, query), found)
    assert (bounds >= exact).all()
    if coarse is _folded:
        exact = _cauchy_schwarz(unit_rows(queries).double(), unit_rows(bank).double())
    far = {first_pass.Bfloat16Pass: 0.02, first_pass.Int8Pass: 0.2, _folded: 0.002}[coarse]
    assert (bounds - exact).max() < far


def _flat_and_hidden(largest):
    """Unit vectors ``[97]``: one that 8 bits hold exactly, and one that loses as much as can be in its direction.

    ``largest`` is the number of steps that the largest component has.
    """
    step = 1 / np.sqrt(96 * 12.49**2 + largest**2)
    flat = torch.tensor([1 / np.sqrt(96)] * 96 + [0.0]).float()
    return flat, torch.tensor([12.49 * step] * 96 + [largest * step]).float()


def _flat_and_rounded_down(count):
    """The same for bfloat16, whose product is rounded, too: more or less, by the number of components."""
    value = 2**-4 * (1 + 2**-8 - 1e-5)
    flat = torch.tensor([1 / np.sqrt(count)] * count + [0.0] * (257 - count)).float()
    return flat, torch.tensor([value] * count + [0.0] * (256 - count) + [np.sqrt(1 - count * value**2)]).float()


def _in_one_rest(count):
    """Two vectors whose rests have one direction: Cauchy's inequality is an equality."""
    angles = np.array([0.3, count / 40])
    mixed = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ _basis(96)[[0, 20]]
    return tuple(torch.from_numpy(mixed).float())


WORST = [
    (first_pass.Int8Pass, True, _flat_and_hidden(127)),
    (first_pass.Int8Pass, False, _flat_and_hidden(127)),
    (first_pass.Int8Pass, True, _flat_and_hidden(127)[::-1]),
    (first_pass.Int8Pass, False, _flat_and_hidden(64)[::-1]),
    *((first_pass.Bfloat16Pass, True, _flat_and_rounded_down(count)) for count in range(190, 253, 7)),
    *((_folded, True, _in_one_rest(count)) for count in range(0, 40, 8)),
]


@pytest.mark.parametrize(("coarse", "vnni", "pair"), WORST)
def test_bounds_hold_where_all_that_is_lost_adds_up(coarse, vnni, pair, monkeypatch):
    monkeypatch.setattr(first_pass, "int_mm_is_fast", lambda: vnni and processor.int_mm_is_exact())
    query, row = pair
    rows = torch.cat([row[None], torch.zeros(3, len(row))])
    bound, _, found = coarse(query[None]).bounds(rows).reaching(torch.full((1,), -9.0))
    above = float(bound[found == 0]) - float(query.double() @ row.double())
    assert 0 <= above < {first_pass.Int8Pass: 2e-5, first_pass.Bfloat16Pass: 0.02, _folded: 5e-4}[coarse]


def test_a_neighbour_whose_bound_promises_least_is_found():
    """Of two rows as near, the one that is looked at first has the higher bound, and the lower similarity."""
    query, hidden = _flat_and_hidden(127)
    other = hidden.clone()
    other[:96:2], other[1:96:2] = hidden[0] * 12.56 / 12.49, hidden[0] * 12.40 / 12.49  # of which half round up
    bank = encode_rows(torch.stack([*[-query] * 70, hidden, other]))
    exact = (unit_rows(bank).double() @ query.double())[70:]
    bounds = first_pass.Int8Pass(query[None]).bounds(first_pass.unit(bank[68:])[0])
    assert exact[0] > exact[1] and bounds.product[2] < bounds.product[3]
    similarity, index = nearest._two_pass(query[None], bank, 1, first_pass.Int8Pass)
    assert index.item() == 70 and similarity.item() == pytest.approx(float(exact[0]), abs=1e-6)


def test_candidates_do_not_wait_in_any_number(monkeypatch):
    monkeypatch.setattr(two_pass, "_WAITING", 100)
    monkeypatch.setattr(two_pass, "_A_CANDIDATE", 1)  # no query is crowded
    waiting, add = [], two_pass._Candidates.add
    monkeypatch.setattr(two_pass._Candidates, "add", lambda self, *of: add(self, *of) or waiting.append(self._many))
    queries, bank = _features(20), encode_rows(_features(3000, seed=1))
    similarity, _, _ = two_pass.search(unit_rows(queries), bank, 1, first_pass.Int8Pass)
    assert len(waiting) > 5 and max(waiting) <= 100
    np.testing.assert_allclose(1 - similarity, _exact(queries, unit_rows(bank)), atol=1e-6)


def _cauchy_schwarz(queries, bank):
    """The closed form of the bounds of :func:`_folded`, from products in float64."""
    basis = _basis(queries.shape[1])[:7].T
    along, rest = (
        [one @ basis, np.linalg.norm(one - one @ basis @ basis.T, axis=1)] for one in (bank.numpy(), queries.numpy())
    )
    return torch.from_numpy(along[0] @ rest[0].T + np.outer(along[1], rest[1]))


def _hard_bank(kind, n, seed):
    """Rows that exclude nothing, or everything, or in whose order there is something."""
    rows = _features(n, 24, seed, clusters=8)
    if kind == "isotropic":
        return _features(n, 24, seed)
    if kind == "duplicates":
        return rows[:3].repeat(-(-n // 3), 1)[:n]
    if kind == "zeros":
        return rows * (torch.arange(n) % 3 > 0)[:, None]
    if kind == "one direction":
        return rows[:1] * torch.linspace(-2, 2, n)[:, None]
    if kind == "opposite":
        return -_features(n, 24, seed).abs()
    return rows[(rows @ rows[0]).argsort()]  # the nearest last


KINDS = ("isotropic", "duplicates", "zeros", "one direction", "opposite", "sorted")


@settings(max_examples=60)
@given(st.sampled_from(KINDS), st.integers(16, 300), st.integers(1, 16), st.booleans(), st.integers(0, 1000))
@pytest.mark.parametrize("coarse", PASSES)
def test_two_pass_is_exact_in_hard_banks(coarse, kind, n_rows, k, far, seed):
    """Against products in float64, with a few groups a query and with many, of queries near to the rows and far."""
    rows = _hard_bank(kind, n_rows, seed)
    queries = _features(20, 24, seed + 1) if far else rows[torch.arange(20) % n_rows] + 0.01 * _features(20, 24, seed)
    queries[0] = 0
    bank = encode_rows(rows)
    exact = unit_rows(queries).double() @ unit_rows(bank).double().T
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(first_pass, "SLAB", 16)
        patched.setattr(folded_pass, "SLAB", 8)
        patched.setattr(two_pass, "_A_CANDIDATE", 1 + 12 * (seed % 2))
        similarity, index = nearest._two_pass(unit_rows(queries), bank, k, coarse)
    torch.testing.assert_close(similarity.double(), exact.topk(k, dim=1).values, rtol=0, atol=2e-6)
    torch.testing.assert_close(exact.gather(1, index), similarity.double(), rtol=0, atol=2e-6)
    assert all(len(set(row)) == k for row in index.tolist())


@pytest.mark.parametrize("coarse", PASSES)
def test_crowded_queries_fall_back_to_the_scan(coarse, small_blocks, monkeypatch):
    monkeypatch.setattr(two_pass, "_A_CANDIDATE", 300)
    queries, bank = _features(60, seed=1), encode_rows(_features(600, clusters=1))
    assert two_pass.search(unit_rows(queries), bank, 1, coarse)[2].any()
    similarity, _ = nearest._two_pass(unit_rows(queries), bank, 1, coarse)
    np.testing.assert_allclose(1 - similarity, _exact(queries, unit_rows(bank)), atol=1e-6)


@pytest.mark.parametrize("vnni", [True, False])
def test_products_of_8_bit_integers_are_exact(vnni, monkeypatch):
    """Without VNNI instructions larger factors than 64 would saturate."""
    monkeypatch.setattr(first_pass, "int_mm_is_fast", lambda: vnni and processor.int_mm_is_exact())
    generator = torch.Generator().manual_seed(0)
    largest = 127 if first_pass.int_mm_is_fast() else 64
    first = torch.randint(-127, 128, (64, 384), generator=generator).float()
    second = torch.randint(-largest, largest + 1, (64, 384), generator=generator)
    first[0], first[1], second[0], second[1] = 127, -127, -largest, largest
    found = first_pass._int8_products(second.to(torch.int8))(first)
    assert torch.equal(found.double(), first.double() @ second.double().T)


@pytest.fixture
def measured(monkeypatch):
    """Sets the seconds that products of bfloat16, of 8 bits, along directions, and the scan are found to take."""

    def seconds(*of):
        times = iter(of)
        monkeypatch.setattr(fastest_pass, "_seconds", lambda call: next(times))
        fastest_pass._faster_than.cache_clear()

    for name in ("fast_bfloat16", "multiplies_int8"):
        monkeypatch.setattr(fastest_pass, name, lambda device: True)
    yield seconds
    fastest_pass._faster_than.cache_clear()


def test_the_search_is_chosen_by_measuring(measured):
    many, few = torch.ones(40_000, 8, dtype=torch.int16), torch.ones(100, 8)
    measured(3.0, 1.0, 2.0)  # too few channels for directions
    assert nearest._choose_search(few, many, 1)[1].keywords == {"first": first_pass.Int8Pass}
    assert nearest.search_name(few, many) == "products of 8-bit integers"
    assert nearest._choose_search(few, few, 1)[1] is nearest._scan
    measured(3.0, 2.0, 2.0)
    assert nearest._choose_search(few, many, 1)[1] is nearest._scan


def test_directions_are_taken_where_they_exclude_something(measured):
    measured(3.0, 1.0, 0.5, 2.0)
    noise = _features(40_000, 96)
    along = _features(40_000, 20) @ _features(20, 96, seed=1) + 0.01 * noise
    name, search, together = nearest._choose_search(along[:64], encode_rows(along), 1)
    assert "directions" in name and together == 4096
    assert search.keywords["first"].keywords["directions"].shape == (32, 96)
    assert nearest.search_name(noise[:64], encode_rows(noise)) == "products of 8-bit integers"
    assert folded_pass.suiting(along[:8], encode_rows(along)) is None, "to find them takes longer than a scan"


def test_ties_and_duplicates_are_distinct_rows(small_blocks):
    bank = encode_rows(_features(3).repeat(20, 1))
    for search in SEARCHES:
        similarity, index = search(unit_rows(_features(3)), bank, 5)
        torch.testing.assert_close(similarity, torch.ones(3, 5), rtol=0, atol=1e-6)
        assert all(len(set(row)) == 5 for row in index.tolist())
        assert (index % 3 == torch.arange(3)[:, None]).all()


def test_bank_smaller_than_k_and_no_queries():
    bank = encode_rows(_features(2))
    assert nearest_neighbours(_features(4), bank, 5)[0].shape == (4, 2)
    assert nearest_neighbours(_features(0), bank, 1)[0].shape == (0, 1)


def test_zero_vector_is_at_distance_one():
    bank = encode_rows(torch.cat([torch.zeros(1, 32), _features(1)]))
    assert not unit_rows(bank)[0].any()
    assert nearest_neighbours(torch.zeros(1, 32), bank)[0].item() == 1


def test_rows_are_stored_finer_than_half_precision():
    features = unit_rows(_features(500, 384))
    coarse = (features.half().float() - features).norm(dim=1).max()
    assert (unit_rows(encode_rows(features)) - features).norm(dim=1).max() < coarse / 4
    assert encode_rows(features).element_size() == 2


@pytest.mark.parametrize(
    ("queries", "bank", "k", "message"),
    [
        (torch.ones(1, 3), torch.ones(0, 3), 1, "empty"),
        (torch.ones(1, 3), torch.ones(2, 4), 1, r"3 channels.*4"),
        (torch.ones(1, 3), torch.ones(2, 3), 0, "k must"),
    ],
)
def test_errors_name_what_is_wrong(queries, bank, k, message):
    with pytest.raises(ValueError, match=message):
        nearest_neighbours(queries, bank, k)
