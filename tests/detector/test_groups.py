"""Members of groups, against a look at every pair."""

import pytest

from dino_uad.detector.groups import members, numbered


@pytest.mark.parametrize("groups", [[], ["a"], ["b", "a", "b", "c", "a", "b"], [3, 3, 0], [("p", 1), None, ("p", 1)]])
def test_members_are_those_that_are_equal_in_the_order_of_the_first(groups):
    names, number = numbered(groups)
    assert names == [group for place, group in enumerate(groups) if group not in groups[:place]]
    assert [names[k] for k in number.tolist()] == groups
    found = members(groups)
    assert list(found) == names
    for name, places in found.items():
        assert places.tolist() == [place for place, group in enumerate(groups) if group == name]
