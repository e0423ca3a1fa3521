from contextlib import contextmanager
from functools import partial

import pytest
import torch

from dino_uad import parallel
from dino_uad.heads.anomaly_dino import coreset
from dino_uad.heads.anomaly_dino.coreset import greedy_coreset
from dino_uad.heads.anomaly_dino.nearest import encode_rows, nearest_neighbours, unit_rows
from workflows import run_in_group


def _plain_greedy(bank, n_select, first):
    rows = unit_rows(bank)
    chosen, nearest = [first], rows @ rows[first]
    for _ in range(n_select - 1):
        chosen.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, rows @ rows[chosen[-1]])
    return torch.tensor(chosen)


def _radius(bank, chosen):
    return nearest_neighbours(bank, bank[chosen])[0].max().item()


def _bank(n, clusters, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(clusters, 48, generator=generator)
    pick = torch.randint(clusters, (n,), generator=generator)
    return encode_rows(centres[pick] + 0.3 * torch.randn(n, 48, generator=generator))


@pytest.mark.parametrize(("n", "clusters", "n_select"), [(3000, 20, 300), (3000, 3000, 300), (700, 5, 600), (40, 3, 7)])
def test_selects_what_the_plain_loop_selects(n, clusters, n_select):
    bank = _bank(n, clusters)
    chosen = greedy_coreset(bank, n_select, seed=3)
    plain = _plain_greedy(bank, n_select, int(chosen[0]))
    assert len(set(chosen.tolist())) == n_select
    # Rounding of the two matrix products may order near ties differently, the radius must not notice.
    assert (chosen == plain).float().mean() > 0.9
    assert _radius(bank, chosen) <= 1.001 * _radius(bank, plain)


def test_covers_clusters_far_better_than_chance():
    bank = _bank(3000, 300)
    random_rows = torch.randperm(3000, generator=torch.Generator().manual_seed(0))[:300]
    assert _radius(bank, greedy_coreset(bank, 300)) < 0.6 * _radius(bank, random_rows)


def test_seed_draws_the_first_row_and_nothing_else():
    bank = _bank(500, 10)
    assert torch.equal(greedy_coreset(bank, 50, seed=1), greedy_coreset(bank, 50, seed=1))
    assert greedy_coreset(bank, 50, seed=1)[0] != greedy_coreset(bank, 50, seed=2)[0]


def test_duplicates_are_taken_once_until_nothing_else_is_left():
    bank = _bank(5, 5).repeat(10, 1)
    chosen = greedy_coreset(bank, 50)
    assert sorted(chosen.tolist()) == list(range(50))
    assert len({index % 5 for index in chosen[:5].tolist()}) == 5


@pytest.mark.parametrize("n_select", [0, 11])
def test_impossible_size(n_select):
    with pytest.raises(ValueError, match=f"{n_select} of 10"):
        greedy_coreset(_bank(10, 2), n_select)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_select_what_one_process_selects(world, tmp_path):
    """Bit for bit, equal distances included, whether all ranks have the bank or each a part, one of them nothing."""
    assert run_in_group(world, partial(_selected_together, world, tmp_path)) == [0] * world
    for name, bank in _banks().items():
        alone = _selected_alone(bank)
        for path in tmp_path.glob(f"{name}_*.pt"):
            assert torch.equal(torch.load(path, weights_only=True), alone), path.name
    assert len(list(tmp_path.iterdir())) == 2 * world * len(_banks())


def _banks():
    # The products of the equal ones have one term each: the same however a processor sums them.
    equal = encode_rows(torch.eye(48)[:30]).repeat(60, 1)
    return {"few": _bank(100, 5), "many": _bank(2500, 40), "equal": equal}


@contextmanager
def _small_blocks_on_one_thread():
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(coreset, "_ROWS", 256)
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@_small_blocks_on_one_thread()
def _selected_alone(bank):
    return greedy_coreset(bank, len(bank) // 3, seed=5)


@_small_blocks_on_one_thread()
def _selected_together(world, folder):
    with parallel.process_group("cpu"):
        rank = parallel.rank()
        for name, bank in _banks().items():
            part = torch.arange(len(bank))
            part = part[part % (world - 1) == rank] if rank < world - 1 else part[:0]
            of_parts = greedy_coreset(bank[part], len(bank) // 3, seed=5, numbers=part)
            torch.save(of_parts, folder / f"{name}_parts{rank}.pt")
            torch.save(greedy_coreset(bank, len(bank) // 3, seed=5), folder / f"{name}_whole{rank}.pt")
