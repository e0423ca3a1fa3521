"""A case, and what was made of a folder of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dino_uad.data.patterns import NONE, divided
from dino_uad.data.roles import Role
from dino_uad.settings import require_choice, require_count, require_number
from dino_uad.transforms import checked_labels

KINDS = ("2d", "3d", None)

LAYOUTS = """expected one of
  BMAD:    train/good/*.png (or train/good/img/*.png), valid|test/{good,Ungood}/{img,label}/*.png
  MVTec:   train/good/*.png, test/{good,<defect>}/*.png, ground_truth/<defect>/*_mask.png
  classes: a folder for each class, one of them called normal, healthy, no_tumor, ...
  plain:   a folder of pictures, or of volumes (NIfTI, NRRD, MHA, DICOM folders), with masks beside them or in labels/
See what is made of a folder with: python -m dino_uad check DIR"""


WAY_OUT = (
    "masks that do not mark anomalies (but organs) are passed over with --train_data#mask_pattern none (from Python "
    "mask_pattern='none')"
)
"""Last sentence of messages about masks."""
SOME_LABELS = (
    "in label maps of organs and lesions --train_data#anomalous_labels '[2]' says which values mark anomalies (from "
    "Python anomalous_labels=[2])"
)
"""Sentence of messages about masks that may mark organs, too."""


@dataclass(frozen=True)
class Case:
    """An image with what is known of it."""

    image: Role
    labels: tuple[Path, ...]
    """Its masks; several are parts of one annotation."""
    anomalous: bool
    group: str
    split: str | None
    anomalous_labels: Sequence[int] | None = None
    """Values of its masks that mark anomalies; None for all."""

    @property
    def trainable(self) -> bool:
        """Whether a normal model may be fitted on it: a normal image, or a volume that tells which slices are not."""
        return not self.anomalous or (self.image.volume and bool(self.labels))

    def as_dict(self) -> dict:
        """The entry of a data list."""
        item = {"image": str(self.image.path), "anomalous": int(self.anomalous), "group": self.group}
        if not self.labels or not self.anomalous:
            return item
        names = [str(path) for path in self.labels]
        chosen = {} if self.anomalous_labels is None else {"anomalous_labels": list(self.anomalous_labels)}
        return {**item, "label": names[0] if len(names) == 1 else names, **chosen}


@dataclass(frozen=True)
class Understood:
    """What was made of a folder: its cases, the files passed over with reasons, and what a person should know."""

    root: Path
    cases: list[Case]
    passed: list[Role]
    patients_from: str
    """How patients are known."""
    splits_from: str
    """How splits are known."""
    notes: list[str]
    doubt: str = ""
    """The note, among those, on patients that look like too few; else empty."""


@dataclass(frozen=True)
class Options:
    """How to read a folder; see :func:`dino_uad.data.folder_list.datalist`.

    Raises:
        ValueError: a pattern that is no text, or no regular expression where it has to be one; an unknown kind; a
            share that is none; labels that are no whole numbers above 0.
    """

    pattern: str = "*"
    kind: str | None = None
    normal: str | Sequence[str] | None = None
    mask_pattern: str | None = None
    image_pattern: str | None = None
    group_pattern: str | None = None
    valid_fraction: float = 0.15
    test_fraction: float = 0.2
    seed: int = 0
    anomalous_labels: Sequence[int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "anomalous_labels", checked_labels(self.anomalous_labels))
        for name in ("pattern", "normal", "mask_pattern", "image_pattern", "group_pattern"):
            found = getattr(self, name)
            if not (found is None or isinstance(found, str) or (name == "normal" and isinstance(found, list | tuple))):
                raise ValueError(f"{name} is {found!r}; expected text, such as {str(found)!r} in quotes")
        require_choice("kind", self.kind, KINDS)
        for name in ("valid_fraction", "test_fraction"):
            require_number(name, getattr(self, name), 0, 1, ends="[)")
        require_count("seed", self.seed, 0)
        try:
            re.compile(self.group_pattern or "")
        except re.error as error:
            raise ValueError(
                f"group_pattern is {self.group_pattern!r}; expected a regular expression such as 'sub-(\\d+)': {error}"
            ) from error

    @classmethod
    def among(cls, arguments: Mapping[str, Any]) -> Options:
        """The options among the arguments of a function that names all of them."""
        return cls(**{field.name: arguments[field.name] for field in fields(cls)})

    @property
    def mask_patterns(self) -> list[str]:
        """The shell patterns in ``mask_pattern``, which commas divide."""
        return divided(self.mask_pattern)

    @property
    def ignores_masks(self) -> bool:
        """Whether the user asked for no mask at all."""
        return [text.casefold() for text in self.mask_patterns] == [NONE]

    @property
    def joins_masks(self) -> bool:
        """Whether the user asked for several masks of an image to be joined, by a pattern for each."""
        return len(self.mask_patterns) > 1
