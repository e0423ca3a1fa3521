"""One pass that gives every file below a folder a role, with the reason: image, mask, or passed over."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

from dino_uad.data.patterns import matches
from dino_uad.data.suffixes import NO_MASKS, stem_of
from dino_uad.data.walk import OTHER, RESULT, VOLUME, Found, walk
from dino_uad.data.words import DERIVED, IMAGES, MASKS, QUALIFIERS, SOLITARY, SPLIT_OF, split_word, words
from dino_uad.transforms import image_name

IMAGE, MASK, UNCHOSEN, PASSED = "image", "mask", "not chosen", "passed over"
DECLARED, CHOSEN = "it matches image_pattern", "it matches mask_pattern"
UNCHOSEN_MASK = "masks that mask_pattern does not choose"
RESULTS = "results of this package"
FOLDER = "the folder"


@dataclass(frozen=True)
class Role:
    """A file of a data set (or the folder of a DICOM series), what it is, and why that is thought."""

    path: Path
    folders: tuple[str, ...]
    """Names of the folders between the data set's and the file."""
    role: str
    reason: str
    volume: bool = False
    unread: bool = False
    """Whether it is in a format that is not read."""
    doubtful: bool = field(default=False, compare=False)
    """Whether it may be a list or a note, and not the mask that its name, suffix or folder says."""
    unnamed: bool = field(default=False, compare=False)
    """Whether its values, its folder or the user, not its name, say that it is a mask."""

    @cached_property
    def relative(self) -> str:
        """The path below the data set's folder, with ``/``."""
        return "/".join((*self.folders, self.path.name))

    @cached_property
    def stem(self) -> str:
        """The file's name without its suffix."""
        return stem_of(self.path.name) if self.doubtful else image_name(self.path)

    @cached_property
    def split(self) -> str | None:
        """``train``, ``valid`` or ``test`` where a folder says so."""
        return next((split for folder in self.folders if (split := split_word(folder))), None)

    @cached_property
    def branch(self) -> tuple[str, ...]:
        """The folders without words for split, images and masks: class and patient, as an image and its mask share."""
        return self._branch(self.folders if self.role != IMAGE else ())

    @cached_property
    def branches(self) -> tuple[tuple[str, ...], ...]:
        """Branches that a mask's image may have: mask words may be part of the deepest such folder's name, or of all.

        In ``Segmentation Data/masks/x.png`` and ``Segmentation Data/images/x.png`` the first folder is what they share.
        """
        said = [folder for folder in self.folders if set(words(folder)) & MASKS]
        return tuple(dict.fromkeys((self._branch(said[-1:]), self.branch)))

    def _branch(self, masked: Sequence[str]) -> tuple[str, ...]:
        gone = SPLIT_OF.keys() | IMAGES
        rests = (_without(gone | MASKS if folder in masked else gone, folder) for folder in self.folders)
        return tuple(rest for rest in rests if rest)


def tell_roles(
    root: Path,
    pattern: str = "*",
    kind: str | None = None,
    mask_patterns: Sequence[str] = (),
    image_pattern: str | None = None,
) -> list[Role]:
    """The role of everything below ``root``, by format, folders and name, in natural order.

    Args:
        root: folder of the data set.
        pattern: shell pattern that an image's name (or its path below ``root``) must match.
        kind: "2d" or "3d": images of the other kind are passed over.
        mask_patterns: shell patterns of the masks; without any names tell them, with one other masks are passed over.
        image_pattern: shell pattern of files that are images whatever their names say.
    """
    roles = []
    for file in walk(root):
        folders = file.path.relative_to(root).parts[:-1]
        role, reason = _role(file, folders, mask_patterns, image_pattern)
        if role == IMAGE and "derivatives" in folders:
            role, reason = PASSED, "BIDS derivatives that are no masks"
        if role == IMAGE and not matches(file.path.name, folders, pattern):
            role, reason = UNCHOSEN, f"images that do not match the pattern {pattern}"
        if role == IMAGE and kind is not None and (file.kind == VOLUME) != (kind == "3d"):
            role, reason = UNCHOSEN, f"images that are not {kind}"
        unnamed = reason == CHOSEN or reason.startswith(FOLDER)
        unread = file.kind == OTHER
        doubtful = unread and not (file.annotation or file.image_format or reason == CHOSEN)
        roles.append(Role(file.path, folders, role, reason, file.kind == VOLUME, unread, doubtful, unnamed))
    return roles


def _role(
    file: Found, folders: Sequence[str], mask_patterns: Sequence[str], image_pattern: str | None
) -> tuple[str, str]:
    name = file.path.name
    if file.kind == RESULT:
        return PASSED, RESULTS
    if file.kind != OTHER and image_pattern is not None and matches(name, folders, image_pattern):
        return IMAGE, DECLARED
    reason = file.says if file.annotation else _mask_reason(file, folders)
    if any(matches(name, folders, pattern) for pattern in mask_patterns):
        reason = CHOSEN
    elif mask_patterns and reason:
        return PASSED, UNCHOSEN_MASK
    if file.kind == OTHER:
        if file.annotation or (reason and not name.lower().endswith(NO_MASKS) and file.path.suffix):
            return MASK, reason
        if file.says:
            return PASSED, file.says
        return PASSED, f"{'images' if file.image_format else 'files'} of a format that is not read"
    if reason:
        return MASK, reason
    if {word for part in (*folders, image_name(file.path)) for word in words(part)} & DERIVED:
        return PASSED, "pictures made of others, such as heat maps"
    return IMAGE, "a picture or volume that nothing calls a mask"


def _mask_reason(file: Found, folders: Sequence[str]) -> str:
    """Why a file is taken for a mask; empty where nothing says so."""
    stem = stem_of(file.path.name) if file.kind == OTHER else image_name(file.path)
    for folder in reversed(folders):
        names = set(words(folder))
        if said := names & MASKS:
            return f"{FOLDER} {folder} says {min(said)}"
        if names & IMAGES:  # the images of a folder called segmentation_data
            break
    said = set(words(stem))
    if said := said & MASKS or (said if said <= SOLITARY else set()):
        return f"the name says {min(said)}"
    if file.kind == OTHER and set(words(file.path.suffix)) & MASKS:
        return f"the suffix says {file.path.suffix.lower().lstrip('.')}"
    return ""


def _without(gone: Set[str], folder: str) -> str:
    said = words(folder)
    if set(said) & gone & MASKS:
        gone = gone | QUALIFIERS
    rest = [word for word in said if word not in gone]
    # A name that says nothing of a role is kept as it is, for people to recognise.
    return normalize("NFC", folder).casefold() if len(rest) == len(said) else " ".join(rest)
