"""Which mask goes with which image, told from names and folders."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence

from dino_uad.data.mask_folders import MaskFolders
from dino_uad.data.roles import IMAGE, Role
from dino_uad.data.words import (
    BIDS_ENTITY,
    BIDS_MASK,
    IMAGES,
    MASKS,
    QUALIFIERS,
    SEQUENCE_END,
    SEQUENCES,
    SOLITARY,
    SPLIT_OF,
    words,
)

Name = tuple[str, ...]
LEADING = IMAGES | {"volume", "vol"}
TRAILING = SEQUENCES | IMAGES


class Pairing:
    """The images of a data set, to be found by their masks.

    Args:
        images: all images.
        masks: all masks; the bare names among them tell nnU-Net's channels (``case_0001``) from numbered cases, and
            their folders may be called after images.
    """

    def __init__(self, images: Sequence[Role], masks: Sequence[Role] = ()) -> None:
        self.channels = _channels(images, {words(mask.stem) for mask in masks})
        self._named: dict[tuple[Name, Name], list[Role]] = defaultdict(list)
        self._folder: dict[Name, list[Role]] = defaultdict(list)
        for image in images:
            for name in dict.fromkeys(self._names(image)):
                self._named[image.branch, name].append(image)
            for depth in range(len(image.branch) + 1):
                self._folder[image.branch[:depth]].append(image)
        self.mask_folders = MaskFolders(self._named, masks, _places)

    def case_name(self, image: Role) -> str:
        """An image's name without its sequence or channel: ``p1_flair`` and ``p1_t1`` are one case; '' for ``t1``."""
        if words(image.stem) in self.channels:
            return image.stem[: -len("_0000")]
        return SEQUENCE_END[image.volume].sub("", image.stem)

    def case(self, image: Role) -> Name:
        """The words of :meth:`case_name`."""
        return words(self.case_name(image))

    def images_of(self, mask: Role) -> list[Role]:
        """The images of one case that the mask annotates; none if its name fits no image."""
        for place in _places(mask):
            own = self.mask_folders.images(place)
            for name in _mask_names(mask):
                if name:
                    found = _in_split(self._named.get((place, name), []), mask)
                else:
                    found = self._only(place, mask) if own is None else []
                if found:
                    return found
            if own is not None:  # a folder that is called after an image belongs to no other
                return _in_split(own, mask)
        return self._beside(mask) or self._anywhere(mask)

    def _names(self, image: Role) -> Iterator[Name]:
        name = words(image.stem)
        yield name
        yield self.case(image)
        yield _stripped(name, trailing=SPLIT_OF.keys()) or name
        yield before_sequence(name)  # p1_flair_preprocessed
        yield _stripped(self.case(image), leading=LEADING) or name
        yield _stripped(name, leading=LEADING) or name

    def _only(self, branch: Name, mask: Role) -> list[Role]:
        """The image of a case that is a folder: all that the folder holds, if that is one case."""
        while branch and branch not in self._folder:  # instances/kidney beside imaging
            branch = branch[:-1]
        found = _in_split(self._folder.get(branch, []), mask)
        below = {image.branch[len(branch) :] for image in found}
        if len({self.case(image) for image in found}) > 1:  # CT, PET and SEG: that of the volume that pattern chose
            found = [image for image in found if image.role == IMAGE]
        one_case = len({self.case(image) for image in found}) == 1
        # pre/FLAIR and orig/FLAIR are one case, 01/FLAIR and 02/FLAIR are two.
        numbered = len(below) > 1 and any(c.isdigit() for folders in below for folder in folders for c in folder)
        return found if branch and one_case and not numbered else []

    def _beside(self, mask: Role) -> list[Role]:
        """An image of the same name in a folder that differs by one name, as ``scans/x`` and ``drawings/x``."""
        names, places = [name for name in _mask_names(mask) if name], list(_places(mask))
        found = {
            id(image): image
            for (branch, name), images in self._named.items()
            if name in names and any(_one_apart(branch, place) for place in places)
            for image in _in_split(images, mask)
        }
        return _single(list(found.values()))

    def _anywhere(self, mask: Role) -> list[Role]:
        """The only image of the data set with a mask's name, wherever it is, if that is more than a number."""
        for name in _mask_names(mask):
            if any(len(word) > 1 and not word.isdecimal() for word in name):
                found = {
                    id(image): image
                    for (_, own), images in self._named.items()
                    if own == name
                    for image in _in_split(images, mask)
                }
                if found:
                    return _single(list(found.values()))
        return []


def _single(found: list[Role]) -> list[Role]:
    """The one image found, or of several sequences the one that the user's pattern chose; none where it is not one."""
    chosen = [image for image in found if image.role == IMAGE]
    return found if len(found) == 1 else chosen if len(chosen) == 1 else []


def _places(mask: Role) -> Iterator[Name]:
    """Branches in which a mask's image may be; those of BIDS derivatives lie one or two folders higher."""
    for branch in mask.branches:
        rest = tuple(folder for folder in branch if folder != "derivatives")
        yield rest
        if rest != branch:
            yield rest[1:]


def before_sequence(name: Name) -> Name:
    """The words of an image's name in front of the one that says its sequence; all of them where none does."""
    return name[: next((place for place, word in enumerate(name) if place and word in SEQUENCES), len(name))]


def called_after(mask: Role, images: Collection[Name]) -> bool:
    """Whether a mask has the name of an image, but for words that say mask; ``images`` are the words of theirs."""
    return any(name in images for name in _mask_names(mask) if name)


def _mask_names(mask: Role) -> Iterator[Name]:
    """Names that the image of a mask may have, the likeliest first; an empty one for all of a folder."""
    for stem in dict.fromkeys((BIDS_MASK.sub("", mask.stem), BIDS_ENTITY.sub("", mask.stem), mask.stem)):
        yield from _names_without_mask_words(mask, words(stem))


def _names_without_mask_words(mask: Role, name: Name) -> Iterator[Name]:
    head = _stripped(name, leading=MASKS)
    cut = next((place for place, word in enumerate(head) if word in MASKS), len(head))
    if all(word in MASKS | QUALIFIERS | SEQUENCES or word.isdecimal() or len(word) == 1 for word in head[cut:]):
        head = head[:cut]
    yield head
    for rest in (_stripped(head, trailing=QUALIFIERS | TRAILING), _stripped(head, leading=LEADING | QUALIFIERS)):
        yield rest
        yield _stripped(rest, leading=LEADING)
    if mask.unnamed:
        yield from (name[:end] for end in range(len(name) - 1, 0, -1))
        yield from (name[start:] for start in range(1, len(name)))
    bare = all(word in QUALIFIERS | SOLITARY or (word.isdecimal() and head != name) for word in head)
    if bare or mask.unnamed:
        yield ()


def _stripped(name: Name, leading: frozenset[str] = frozenset(), trailing: frozenset[str] = frozenset()) -> Name:
    start, end = 0, len(name)
    while start < end and name[start] in leading:
        start += 1
    while end > start and name[end - 1] in trailing:
        end -= 1
    return name[start:end]


def _in_split(images: Sequence[Role], mask: Role) -> list[Role]:
    """Images of the mask's split; for a mask without split, those of the test where there are any."""
    if mask.split is not None:
        return [image for image in images if image.split in (mask.split, None)]
    tested = [image for image in images if image.split == "test"]
    return tested or list(images)


def _one_apart(first: Name, second: Name) -> bool:
    """Whether two branches differ by one folder that has another name, or is missing, in one of them."""
    longer, shorter = sorted((first, second), key=len, reverse=True)
    if len(longer) == len(shorter):
        return sum(a != b for a, b in zip(longer, shorter, strict=True)) == 1
    return any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))


def _channels(images: Sequence[Role], masks: set[Name]) -> set[Name]:
    """The names that end in a channel, nnU-Net's ``case_0000``, ``case_0001``, and not in the number of a case."""
    names = {words(image.stem) for image in images if image.volume}
    numbered = {name for name in names if len(name) > 1 and len(name[-1]) == 4 and name[-1].isdecimal()}
    count = Counter(name[:-1] for name in numbered)
    several = len(count) > 1 and max(count.values()) <= 16 and all((*case, "0000") in names for case in count)
    return {name for name in numbered if several or name[:-1] in masks}
