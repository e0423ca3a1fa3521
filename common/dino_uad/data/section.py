"""Files divided over processes by how much there is to do with each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.data.utils import is_supported_format

from dino_uad import parallel
from dino_uad.transforms import PICTURE_SUFFIXES, files_of
from dino_uad.unequal_work import by_first_rank


def section_of_files(data: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """This process's section of a data list: those of all processes, one after another, are the list in its order.

    Every process gets about as many pictures or, where there are volumes, as many bytes: which slices of a volume are
    taken is not known before it is read.
    """
    return parallel.section(data, _work(data))


@by_first_rank
def _work(data: Sequence[Mapping[str, Any]]) -> list[int]:
    """Of each entry 1 or, where there are volumes, the bytes of its image's files."""
    images = [entry["image"] for entry in data]
    if is_supported_format(images, PICTURE_SUFFIXES):
        return [1] * len(images)
    return [max(1, sum(file.stat().st_size for file in files_of(image))) for image in images]
