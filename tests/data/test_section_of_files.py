"""Files divided over processes: each once, in their order, and no process much more than its part."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dino_uad import parallel
from dino_uad.data import section, section_of_files


def sections(data, world, work=None):
    """Every process's section, where entries have these amounts of work."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel.division, "world_size", lambda: world)
        measured = work or section._work.__wrapped__(data)  # by the first process, in a group
        patch.setattr(section, "_work", lambda data: measured)
        for rank in range(world):
            patch.setattr(parallel.division, "rank", lambda rank=rank: rank)
            found.append(section_of_files(data))
    return found


@given(st.lists(st.integers(1, 10**10), max_size=30), st.integers(1, 8))
def test_each_file_once_in_order_and_none_has_more_than_its_part_and_a_file(work, world):
    data = [{"image": f"{number}.nii", "bytes": amount} for number, amount in enumerate(work)]
    found = sections(data, world, work)
    assert [entry for one in found for entry in one] == data
    most = max((sum(entry["bytes"] for entry in one) for one in found), default=0)
    assert most <= sum(work) / world + max(work, default=0)


@pytest.mark.parametrize(("count", "world"), [(0, 2), (1, 3), (7, 1), (7, 2), (7, 3), (7, 7)])
def test_pictures_are_divided_by_their_number(tmp_path, count, world):
    data = [{"image": str(tmp_path / f"{number}.png")} for number in range(count)]  # not looked at
    found = sections(data, world)
    assert [entry for one in found for entry in one] == data
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_volumes_are_divided_by_the_bytes_of_all_their_files(tmp_path):
    sizes = {"a.nii.gz": [900], "b": [300, 300], "c.mhd": [50, 250], "d.nii": [300], "e.nii": [300], "f.nii": [300]}
    for name, parts in sizes.items():
        paths = [tmp_path / name, tmp_path / "c.raw"] if name == "c.mhd" else [tmp_path / name]
        if name == "b":
            (tmp_path / "b").mkdir()
            paths = [tmp_path / "b" / f"{number}.dcm" for number in range(2)]
        for path, size in zip(paths, parts, strict=True):
            path.write_bytes(b"ElementDataFile = c.raw\n".ljust(size, b"\n"))
    data = [{"image": str(tmp_path / name)} for name in sizes]
    names = [[entry["image"].rpartition("/")[2] for entry in one] for one in sections(data, 3)]
    assert names == [["a.nii.gz"], ["b", "c.mhd"], ["d.nii", "e.nii", "f.nii"]]
