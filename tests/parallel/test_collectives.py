"""Rows of all processes, of whatever kind and however many each has, come together in the order of the ranks."""

import pytest
import torch

from dino_uad import parallel
from workflows import two_ranks

DTYPES = (torch.int16, torch.bool, torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8)
SHAPES = ((), (3,), (2, 1))


def rows(rank: int, dtype: torch.dtype, shape: tuple[int, ...], count: int) -> torch.Tensor:
    """Rows of one rank that lie apart in memory."""
    numbers = torch.randint(-9, 9, (*shape, count), generator=torch.Generator().manual_seed(rank))
    return numbers.movedim(-1, 0).to(dtype)


def gathered(rank: int) -> None:
    parallel.collectives._ROWS = 2  # so that five rows travel in three pieces
    for counts in ((2, 5), (3, 0), (0, 4), (0, 0)):
        for dtype in DTYPES:
            for shape in SHAPES:
                mine = rows(rank, dtype, shape, counts[rank])
                everyones = torch.cat([rows(one, dtype, shape, count) for one, count in enumerate(counts)])
                torch.testing.assert_close(parallel.gather_rows(mine), everyones, rtol=0, atol=0)
                collected = parallel.collect_rows(mine)
                assert (collected is None) == (rank > 0)
                if collected is not None:
                    torch.testing.assert_close(collected, everyones, rtol=0, atol=0)
        assert torch.equal(everyones[parallel.own_place(parallel.counts(len(mine), mine.device))], mine)


def test_rows_of_any_kind_come_together():
    two_ranks(gathered)


@pytest.mark.parametrize("function", [parallel.gather_rows, parallel.collect_rows])
def test_one_process_keeps_its_rows(function):
    mine = rows(0, torch.int16, (3,), 4)
    assert torch.equal(function(mine), mine)


def divided(rank: int) -> None:
    for count in (0, 1, 4, 5):
        items = list(range(count))
        assert parallel.share(items) == items[rank::2]
        assert parallel.join_shares([-item for item in parallel.share(items)]) == [-item for item in items]
        assert [item for own in parallel.gather_objects(parallel.section(items)) for item in own] == items
    assert parallel.broadcast_object(f"of rank {rank}") == "of rank 0"


def test_work_is_divided_and_joined_in_its_order():
    two_ranks(divided)
