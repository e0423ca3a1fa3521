"""What is set aside for calibration when there are no validation images."""

import numpy as np
import pytest

from dino_uad.embeddings.hold_out import hold_out


def test_whole_entries_where_there_are_several():
    entries = np.repeat([0, 1, 3], 4)
    assert np.array_equal(hold_out(entries, 0.2), entries == 3)
    assert np.array_equal(np.flatnonzero(hold_out(np.arange(10), 0.3)), [7, 8, 9])


def test_spread_slices_of_a_single_volume():
    assert np.array_equal(np.flatnonzero(hold_out(np.zeros(20, int), 0.2)), [2, 7, 12, 17])
    assert np.array_equal(hold_out(np.zeros(2, int), 0.2), [False, True])


def test_nothing_is_set_aside_unless_asked_and_one_slice_is_too_few():
    assert not hold_out(np.zeros(1, int), 0).any()
    with pytest.raises(ValueError, match="1 normal slice"):
        hold_out(np.zeros(1, int), 0.2)
