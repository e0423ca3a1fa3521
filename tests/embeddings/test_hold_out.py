"""What is set aside for calibration when there are no validation images."""

import pytest

from dino_uad.embeddings.hold_out import hold_out


def test_whole_entries_where_there_are_several():
    slices = [(entry, index) for entry in (0, 1, 3) for index in range(4)]
    kept, aside = hold_out(slices, 0.2)
    assert kept == slices[:8] and aside == slices[8:]
    ten = [(entry, 0) for entry in range(10)]
    assert hold_out(ten, 0.3) == (ten[:7], ten[7:])


def test_spread_slices_of_a_single_volume():
    slices = [(0, index) for index in range(20)]
    kept, aside = hold_out(slices, 0.2)
    assert [index for _, index in aside] == [2, 7, 12, 17]
    assert sorted(kept + aside) == slices
    assert hold_out(slices[:2], 0.2) == ([(0, 0)], [(0, 1)])


def test_nothing_is_set_aside_unless_asked_and_one_slice_is_too_few():
    assert hold_out([(0, 0)], 0) == ([(0, 0)], [])
    with pytest.raises(ValueError, match="1 normal slice"):
        hold_out([(0, 0)], 0.2)
