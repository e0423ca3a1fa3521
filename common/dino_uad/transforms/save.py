"""Save anomaly maps and masks so that they lie on the input in any viewer."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import SaveImaged
from PIL import Image
from torch import Tensor

from dino_uad.files import atomic_path
from dino_uad.transforms.nifti_geometry import nifti_like
from dino_uad.transforms.own_results import NIFTI_MARK, is_own_result, png_mark, tiff_mark
from dino_uad.transforms.suffixes import image_name
from dino_uad.transforms.unscored import nothing_scored
from dino_uad.wording import visible

LONGEST = 206
"""Bytes of a name that are kept: with its place, a postfix and what a file is called while it is written, no more than
the 255 that file systems allow."""

logger = logging.getLogger(__name__)


class SaveMapd(SaveImaged):
    """Saves maps and masks on the grid of the file they were made from, after ``Invertd``.

    - of a picture: a float map ``[1,W,H]`` as 32-bit float TIFF, a mask (bool or uint8) as PNG with 0 and 255,
      numbered findings (int16) as 16-bit PNG;
    - of a volume: NIfTI with the input's shape and affine, float32, uint8 or int16; of a NIfTI file with its own qform
      and sform.

    The name is ``<input>_<postfix>.<ext>``. When inputs of one name come from different folders, later ones get the
    first 8 digits of their path's sha256 added, never an overwritten result, and so do names that are too long for a
    file, cut; names that differ in case alone are one name on many disks. Files appear only whole. The path is also
    put into ``meta["saved_to"]``, and as ``<postfix>_map`` into the item's ``saved``. Every file carries the mark by
    which ``is_own_result`` knows it. Nothing is saved of a scan of which nothing was scored. It is a ``SaveImaged``,
    because MONAI Label takes those out of postprocessing.

    Args:
        keys: maps and masks, MetaTensors whose meta data came from ``LoadScand``.
        output_dir: folder; made when needed.
        output_postfix: a word for all keys, or one a key; None takes the key's own name.
        anonymous_names: name files ``scan_<sha256 of the path>`` instead of by the input.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path = "./output",
        output_postfix: str | tuple[str, ...] | None = None,
        anonymous_names: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, output_dir=output_dir, print_log=False, allow_missing_keys=allow_missing_keys)
        postfixes = self.keys if output_postfix is None else output_postfix
        self.postfixes = (postfixes,) * len(self.keys) if isinstance(postfixes, str) else tuple(map(str, postfixes))
        self.output_dir = Path(output_dir)
        self.anonymous_names = anonymous_names
        self._sources: dict[str, str] = {}
        self._claim: Callable[[str, str], str] | None = None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if nothing_scored(result):
            return result
        for key, postfix in self.key_iterator(result, self.postfixes):
            image = result[key]
            if "scan_shape" not in getattr(image, "meta", {}):
                raise ValueError(f"{key!r} does not tell its input's grid; load with LoadScand and keep the meta data")
            picture = is_picture(image)
            suffix = (".tif" if image.is_floating_point() else ".png") if picture else ".nii.gz"
            path = self.path(str(image.meta["filename_or_obj"]), postfix, suffix)
            with atomic_path(path) as temporary:
                (save_picture if picture else save_volume)(image, temporary)
            image.meta["saved_to"] = str(path)
            result["saved"] = {**result.get("saved", {}), f"{postfix}_map": str(path)}
            logger.info("saved %s", visible(str(path)))
        return result

    def reserve(self, name: str, source: str) -> None:
        """Keep the name of a result that an earlier run saved for the file ``source``."""
        self._sources.setdefault(_on_disk(self.output_dir / name), _place(source))

    def claim_names(self, claim: Callable[[str, str], str]) -> None:
        """Ask for new names: ``claim(name, owner)`` says whose it is, where several runs save into one folder."""
        self._claim = claim

    def path(self, source: str, postfix: str, suffix: str) -> Path:
        """Where the result of a file goes: by its name, and by its place too where another has that name."""
        path, with_place = self._names(source, postfix, suffix)
        place, name = _place(source), _on_disk(path)
        mine = self._sources.get(name, place) == place
        if mine and name not in self._sources and self._claim:
            mine = self._claim(_on_disk(Path(path.name)), _place_digest(source)) == _place_digest(source)
        path = path if mine else with_place
        self._sources[_on_disk(path)] = place
        return path

    def discard(self, source: str, suffixes: Sequence[str] = (".tif", ".png", ".nii.gz")) -> None:
        """Remove what former runs saved of a file that cannot be scored any more.

        Results of which nothing says whose they are, neither their name nor a former list, stay.
        """
        for postfix, suffix in product(self.postfixes, suffixes):
            short, with_place = self._names(source, postfix, suffix)
            mine = [with_place, *([short] if self._sources.get(_on_disk(short)) == _place(source) else [])]
            for path in mine:
                if path.is_file() and is_own_result(path):
                    path.unlink()
                    logger.info("removed %s, of a file that could not be scored again", visible(str(path)))

    def _names(self, source: str, postfix: str, suffix: str) -> tuple[Path, Path]:
        """The two names that the result of a file may have."""
        name = anonymous_name(source) if self.anonymous_names else image_name(Path(source))
        kept = os.fsencode(name)[:LONGEST].decode("utf-8", "ignore") if len(os.fsencode(name)) > LONGEST else name
        with_place = f"{kept}_{_place_digest(source)}"
        stems = (name if kept == name else with_place, with_place)
        return tuple(self.output_dir / f"{stem}_{postfix}{suffix}" for stem in stems)


def anonymous_name(source: str | Path) -> str:
    """``scan_`` and a hash of the file's absolute path: how maps and tables call a scan without its name."""
    return f"scan_{_place_digest(source)}"


def _place_digest(source: str | Path) -> str:
    return hashlib.sha256(_place(source).encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _on_disk(path: Path) -> str:
    """One text for all names that a disk may take for one: many know neither case nor how an accent is composed."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _place(source: str | Path) -> str:
    """A file's path from the root: a list of former results tells that one."""
    return str(Path(source).absolute())


def is_picture(image: Tensor) -> bool:
    """Whether a MetaTensor was read from a picture ``[C,W,H]``, not from a scan of one slice ``[1,X,Y,1]``."""
    return bool(image.meta["picture"])


def save_picture(image: Tensor, path: Path) -> None:
    """Write ``[1,W,H]`` in the picture's own rows and columns: masks as 0 and 255, numbers and scores as they are."""
    array = on_scan_grid(image)
    if image.dtype == torch.int16:
        Image.fromarray(np.ascontiguousarray(array.astype(np.uint16).T)).save(path, pnginfo=png_mark())
    elif image.dtype in (torch.bool, torch.uint8):
        Image.fromarray((array != 0).astype(np.uint8).T * 255).save(path, pnginfo=png_mark())
    else:
        picture = Image.fromarray(np.ascontiguousarray(array.astype(np.float32).T))
        content = io.BytesIO()  # Pillow's compressor opens no file whose name is not UTF-8
        picture.save(content, "TIFF", compression="tiff_adobe_deflate", tiffinfo=tiff_mark())
        path.write_bytes(content.getvalue())


def save_volume(image: Tensor, path: Path) -> None:
    """Write ``[1,X,Y,Z]`` with the input file's shape, affine and unit."""
    array = on_scan_grid(image)
    if image.dtype != torch.int16:
        array = array.astype(np.uint8 if image.dtype in (torch.bool, torch.uint8) else np.float32, copy=False)
    volume = nifti_like(array, image.meta)
    volume.header["descrip"] = NIFTI_MARK
    nib.save(volume, path)


def is_on_scan_grid(image: Tensor) -> bool:
    """Whether a map ``[1,...]`` has the shape and orientation of its input file."""
    # A single slice was laid out with its axis of size 1 last; moving that axis does not reorder the values.
    sides = [side for side in image.shape[1:] if side != 1]
    expected = [int(side) for side in image.meta["scan_shape"] if int(side) != 1]
    same = np.allclose(image.meta["affine"], image.meta["original_affine"], atol=1e-3)
    return image.shape[0] == 1 and sides == expected and bool(same)


def on_scan_grid(image: Tensor) -> np.ndarray:
    """Return the values in the shape of the input file; raise ValueError if the map was not brought back to it."""
    shape = tuple(int(side) for side in image.meta["scan_shape"])
    array = image.as_subclass(Tensor).detach().cpu().numpy()
    if not is_on_scan_grid(image):
        raise ValueError(
            f"{image.meta.get('filename_or_obj')}: map of shape {list(array.shape)} found, its input has {list(shape)} "
            "(and maybe another orientation); expected one channel on the input's grid: put Invertd before SaveMapd"
        )
    return array.reshape(shape)
