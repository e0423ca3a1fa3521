"""Which images are normal, told by the folders and names that people sort images into."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path

from dino_uad.data.patterns import divided, fits, matches
from dino_uad.data.roles import Role
from dino_uad.data.stems import classes_in_ends, classes_in_stems, name_words, numbered_pattern
from dino_uad.data.words import (
    ANOMALOUS,
    CONTAINERS,
    DEGREES,
    FINDINGS,
    GRADES,
    NO,
    NORMAL,
    SEQUENCES,
    is_anomalous,
    is_normal,
    say_anomalous,
    say_normal,
    words,
)

Branch = tuple[str, ...]
OTHERS = "others"
SINGLE_DIGITS = {str(digit) for digit in range(10)}


class Classes:
    """The classes of a data set's images.

    A folder with a normal word makes its siblings anomalous, in every split; a folder with an anomalous word needs no
    sibling. The deepest folder that says something decides. Where folders say nothing, words in file names do.

    Args:
        images: all images.
        normal: names or shell patterns of normal folders (or of images), instead of the words. ``"*"`` says that all
            are normal of which nothing says otherwise: what a mask marks stays anomalous.

    Raises:
        ValueError: ``normal`` fits nothing.
    """

    def __init__(self, images: Sequence[Role], normal: str | Iterable[str] | None = None) -> None:
        folders = {folder for image in images for folder in image.branch}
        self.declared = [text.casefold() for text in divided(normal, folders)]
        self._children: dict[Branch, Counter[str]] = defaultdict(Counter)
        for image in images:
            for depth, folder in enumerate(image.branch):
                self._children[image.branch[:depth]][folder] += 1
        self._direct = Counter(image.branch for image in images)
        self.normal_folders = {
            folder for siblings in self._children.values() for folder in siblings if self._normal(folder, siblings)
        }
        self.anomalous_folders = {
            folder
            for siblings in self._children.values()
            if self.normal_folders & siblings.keys()
            for folder in siblings.keys() - self.normal_folders
        }
        self._sorted_by_file = {image.branch for image in images if self._declared_file(image)}
        self._by_name = self._classes_by_name(images)
        unused = [text for text in self.declared if not any(self._declares(text, image) for image in images)]
        if unused:
            raise ValueError(f"normal is {unused[0]!r}; no folder or image has that name. Found {self._folder_names()}")

    @property
    def all_normal(self) -> bool:
        """Whether the user said that all are normal, but for what masks mark."""
        return self.declared == ["*"]

    def anomalous(self, image: Role) -> bool | None:
        """Whether an image is anomalous; None where neither folders nor its name say so."""
        if self._declared_file(image):
            return False
        for depth in range(len(image.branch) - 1, -1, -1):
            folder, siblings = image.branch[depth], self._children[image.branch[:depth]]
            if folder in self.normal_folders:
                return False
            says = is_anomalous(folder) and (len(siblings) > 1 or self._direct[image.branch[: depth + 1]] > 0)
            if folder in self.anomalous_folders or (says and not self.declared):
                return True
        return True if image.branch in self._sorted_by_file else self._by_name.get(image.path)

    def by_place_alone(self, images: Iterable[Role]) -> Counter[str]:
        """The folders that are anomalous only because they lie beside a normal one, with their images' numbers."""
        places = Counter(
            next(folder for folder in reversed(image.branch) if folder in self.anomalous_folders)
            for image in images
            if self.anomalous_folders & set(image.branch)
            and not {word for folder in image.branch for word in words(folder)} & (FINDINGS | DEGREES)
        )
        return Counter() if self.declared else places

    def check_understood(self, root: Path, images: Sequence[Role], groups: Collection[str]) -> None:
        """Ask where folders or names look like classes and none of them is known to be normal.

        Args:
            root: the data set's folder, for the message.
            images: those without a mask.
            groups: patients that the user told, whose folders are no classes.

        Raises:
            ValueError: which classes were found, and how to say which are normal.
        """
        if self.declared:
            return
        undecided = [image for image in images if self.anomalous(image) is None]
        self._check_folders(root, images, undecided, groups)
        silent = [name_words(image.stem) for image in undecided]
        said = Counter(min(set(name) & (NORMAL | ANOMALOUS), default=OTHERS) for name in silent)
        if set(said) - {OTHERS} and (len(said) > 1 or said.keys() & ANOMALOUS):
            by_word = [f"*{word}*" for word in sorted(said, key=lambda word: word not in NORMAL) if word != OTHERS]
            normal = by_word if said.keys() & NORMAL else [*_others(undecided), *by_word]
            raise ValueError(_question(root, "file names", said, normal))
        by_place: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for image in undecided:
            by_place[image.folders].append(image.stem)
        for stems in by_place.values():
            if found := classes_in_stems(stems) or classes_in_ends(stems):
                raise ValueError(_question(root, "file names", found, list(found)))

    def _check_folders(
        self, root: Path, images: Sequence[Role], undecided: Sequence[Role], groups: Collection[str]
    ) -> None:
        for place, siblings in self._children.items():
            inside = [image for image in images if image.branch[: len(place)] == place]
            told = {self.anomalous(image) for image in inside}
            if not inside or self.normal_folders & siblings.keys() or told == {True, False} or told == {False}:
                continue
            if self._like_classes(siblings) and not all(
                any(f in group.casefold() for group in groups) for f in siblings
            ):
                raise ValueError(_question(root, "folders", siblings, [], patients=True))
            found = classes_in_stems(siblings)
            if found and any(image.branch[: len(place)] == place for image in undecided):
                raise ValueError(_question(root, "folders", found, list(found)))

    def _normal(self, folder: str, siblings: Collection[str]) -> bool:
        if self.declared:
            return any(fits(folder, text) for text in self.declared)
        return is_normal(folder) or (_spoken(folder) == ("no",) and ("yes",) in map(_spoken, siblings))

    def _declares(self, text: str, image: Role) -> bool:
        return any(fits(folder, text) for folder in image.branch) or matches(
            image.path.name.casefold(), image.branch, text
        )

    def _declared_file(self, image: Role) -> bool:
        return any(matches(image.path.name.casefold(), image.branch, text) for text in self.declared)

    def _folder_names(self) -> str:
        return ", ".join(sorted({folder for siblings in self._children.values() for folder in siblings})[:12]) or "none"

    def _classes_by_name(self, images: Sequence[Role]) -> dict[Path, bool]:
        """The class that a file's name tells, where names tell both kinds."""
        said = {image.path: _class_of(name_words(image.stem)) for image in images}
        normal, anomalous = ({path for path, is_ill in said.items() if is_ill is kind} for kind in (False, True))
        if self.declared or not normal or not anomalous:
            return {}
        return {path: path in anomalous for path in normal | anomalous}

    @staticmethod
    def _like_classes(siblings: Counter[str]) -> bool:
        """Whether folders are classes rather than patients: names without numbers, or single digits from 0 on."""
        if len(siblings) < 2 or sum(siblings.values()) == len(siblings):
            return False
        if "0" in siblings and siblings.keys() <= SINGLE_DIGITS:
            return True
        if all(GRADES & {word.rstrip("0123456789") for word in words(folder)} for folder in siblings):
            return True
        named = [folder for folder in siblings if not _names_no_class(folder)]
        counted = _enumerated(named)
        plain = [name if not counted else " ".join(_spoken(name)) for name in named]
        return len(named) > 1 and all(_speaks_of_class(name) or not any(c.isdigit() for c in name) for name in plain)


def _speaks_of_class(folder: str) -> bool:
    """Whether a folder's name has a word of a class, whatever it says with it (``HER2_negative``)."""
    return bool(set(words(folder)) & (NORMAL | ANOMALOUS))


def _spoken(folder: str) -> tuple[str, ...]:
    """The words of a folder's name that are no numbers."""
    return tuple(word for word in words(folder) if not word.isdecimal())


def _enumerated(folders: Sequence[str]) -> bool:
    """Whether a number counts folders of different names, from 0 or 1 on: ``0-No``, ``1-Yes``; no patients then."""
    numbers = sorted(int(word) for folder in folders for word in words(folder) if word.isdecimal())
    spoken = {_spoken(folder) for folder in folders} - {()}
    return len(spoken) == len(folders) and numbers in ([*range(len(folders))], [*range(1, len(folders) + 1)])


def _names_no_class(folder: str) -> bool:
    """Whether a folder is a sequence's or a container's, as ``flair``, ``site_A`` or ``axial``."""
    said = {word for word in words(folder) if len(word) > 1}
    return bool(said) and said <= SEQUENCES | CONTAINERS


def _class_of(name: tuple[str, ...]) -> bool | None:
    """Whether the words of a file's name say that it is anomalous; None where they say nothing."""
    if not say_normal(name):
        return True if say_anomalous(name) else None
    denied = {after for before, after in pairwise(name) if before in NO}
    return bool(set(name) & ANOMALOUS - denied)


def _others(images: Sequence[Role]) -> list[str]:
    """A pattern of the images in whose names no word says a class: of the first of them."""
    silent = (image for image in images if not set(name_words(image.stem)) & (NORMAL | ANOMALOUS))
    return [numbered_pattern(image.path.name) for image in islice(silent, 1)]


def _question(root: Path, where: str, found: Mapping[str, int], examples: Sequence[str], patients: bool = False) -> str:
    """Message on names that look like classes; ``examples`` are patterns of those that may be normal."""
    listed = ", ".join(f"{name} ({count})" for name, count in list(found.items())[:12])
    advice = f"as in --train_data#normal '{examples[0]}'" if examples else "--train_data#normal 'NAME' with one of them"
    return (
        f"{root}: the {where} look like classes: {listed}; none is known to be normal. "
        f"Say which images are normal, {advice} (several with commas, shell patterns, '*' for all; from Python "
        "normal=...)."
        + (" If they are patients, say so with --train_data#group_pattern '^([^/]+)/'." if patients else "")
    )
