"""Results in order, made by several threads, of no more items than they work on."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dino_uad.ahead import READERS, ahead


@given(st.lists(st.floats(0, 1e-3), max_size=12))
@settings(deadline=None, max_examples=20)
def test_order_is_that_of_the_items(delays):
    items = list(enumerate(delays))
    assert list(ahead(lambda item: (time.sleep(item[1]), item)[1], items)) == items


def test_several_are_under_way_at_once():
    """Each waits for all the others, for which one thread would wait for ever."""
    meeting = threading.Barrier(READERS)
    assert list(ahead(lambda item: (meeting.wait(timeout=60), item)[1], range(READERS))) == list(range(READERS))


def test_no_more_items_are_taken_than_are_worked_on():
    taken = []
    results = ahead(lambda item: item, (taken.append(i) or i for i in range(10**9)))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) == READERS + 3
    results.close()


def test_an_error_comes_in_its_turn():
    results = ahead(lambda item: 1 / item, [1, 2, 0, 4])
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
