"""Folders of masks called after an image: ``masks/005/000.png`` is a part of the mask of ``images/005.png``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from dino_uad.data.roles import Role
from dino_uad.data.words import words

Name = tuple[str, ...]
Named = Mapping[tuple[Name, Name], Sequence[Role]]
"""Images by their branch and their name."""
MOST = 0.5  # of the images of a place, that files in such a folder may be called after by chance


class MaskFolders:
    """The places in which folders of masks bear the names of images.

    Where one folder does, its siblings do too: one whose image is missing goes with no other image.

    Args:
        named: the images.
        masks: all masks.
        places: branches in which the image of a mask may be.
    """

    def __init__(self, named: Named, masks: Sequence[Role], places: Callable[[Role], Iterable[Name]]) -> None:
        self._named = named
        self._inside: dict[Name, dict[str, list[Role]]] = defaultdict(lambda: defaultdict(list))
        for mask in masks:
            for place in places(mask):
                for depth, folder in enumerate(place):
                    if words(folder) and (place[:depth], words(folder)) in named:
                        self._inside[place[:depth]][folder].append(mask)

    def images(self, place: Name) -> Sequence[Role] | None:
        """The images after whom a folder in ``place`` is called; None where folders there are not called after any."""
        for depth in reversed(range(len(place))):
            if place[:depth] in self._inside:
                return self._named.get((place[:depth], words(place[depth])), [])
        return None

    def refuse_ambiguous(self) -> None:
        """Raise ValueError where the files in such folders are called after most of the images, as a reader's are."""
        for place, folders in self._inside.items():
            files = {words(mask.stem) for masks in folders.values() for mask in masks}
            images = {words(image.stem) for (branch, _), own in self._named.items() if branch == place for image in own}
            if len(files & images) > max(len(folders), MOST * len(images)):
                one = next(iter(folders.values()))[0]
                raise ValueError(
                    f"{one.path}: the mask's folder and the masks in it are called after images, so that it may go "
                    "with either; expected one of both. Rename the folder if it is a reader or a class (reader_1), or "
                    "the files if they are parts of one mask (lesion_1.png, lesion_2.png)"
                )
