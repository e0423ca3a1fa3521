"""A fitted bundle as a Python object: ``dino_uad.load("bundles/dpmm")("scan.nii.gz")`` gives map, label map, score."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.bundle.utils import ID_SEP_KEY
from monai.transforms import SaveImaged
from torch import Tensor

from dino_uad.as_file import InMemory, as_file
from dino_uad.as_typed import expand_folder
from dino_uad.bundle_run import find_bundle
from dino_uad.detector import FALSE_POSITIVE_RATES
from dino_uad.digests import digest_file
from dino_uad.errors import explain
from dino_uad.findings import Finding, ScanGrid
from dino_uad.overrides import put_overrides
from dino_uad.saved_names import SavedNames
from dino_uad.settings import require_device
from dino_uad.transforms import NOTHING_SCORED, SaveMapd, ServedMapd, is_picture, nothing_scored, on_scan_grid

Source = str | os.PathLike[str] | InMemory
IN_VAIN = {"output_dir": "save(folder) says where to", "save_dicom": "DICOM objects are written on the command line"}
SERIES = "infer_data#series"


@dataclass(frozen=True)
class Prediction:
    """What a bundle finds in one image or volume, on the grid of its file.

    A picture's arrays are ``[W,H]``-transposed to ``[H,W]``, as pillow and matplotlib have them; a volume's are
    ``[X,Y,Z]``, as nibabel has them.
    """

    source: str
    """The file, or the name that was given to an array."""
    anomaly_map: np.ndarray
    """Float32; higher is more anomalous."""
    label_map: np.ndarray
    """Uint8; not 0 where ``anomaly_map`` reaches the threshold of the operating point asked for."""
    score: float
    """How anomalous the image is as a whole: the mean of the largest 1 % of its scores, of a volume's highest slice."""
    p_value: float | None
    """Share of normal validation scans at least as anomalous (conformal); None where the model does not tell."""
    findings: list[Finding]
    """What ``label_map`` marks, measured, by falling peak."""
    thresholds: dict[float, float]
    """Threshold of ``anomaly_map`` for each calibrated false positive rate of normal pixels."""
    affine: np.ndarray | None
    """Voxel indices to RAS millimetres, ``[4,4]``; None for a picture."""
    _item: dict[str, dict[str, Any]] = field(repr=False)
    _names: SavedNames = field(repr=False)
    _digest: str = field(repr=False)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write the maps that ``inference.json`` writes, byte for byte; returns their paths.

        They are called as that calls them: by their file, and by its place too where the folder has results of another
        file of that name.

        Raises:
            ValueError: the folder has the results of another array of this name.
        """
        return self._names.save(Path(os.path.expanduser(folder)), self._item, self.source, self._digest)


class Predictor:
    """Runs the ``inference.json`` of a fitted bundle: the same transforms, network and thresholds, one image at a time.

    Args:
        bundle: folder of the bundle, or the name of one in ``bundles/``.
        device: where the network runs, such as ``"cuda:0"``; the config's choice (first GPU, else CPU) when None.
        overrides: config keys with ``#`` written as ``__``: ``image_size=[224, 224]``,
            ``displayable_configs__false_positive_rate="1 %"``. What the model was fitted with must be given here too.
            ``infer_data__series`` chooses among the stacks of DICOM folders, where a call names no other.

    Raises:
        FileNotFoundError: no such bundle, or it has no ``model.pt`` yet.
        ValueError: an override names a key that the config does not have, or that nothing here depends on; or the
            model was fitted with other settings; they are named.
    """

    def __init__(self, bundle: str | os.PathLike[str], device: str | torch.device | None = None, **overrides: Any):
        self.bundle = find_bundle(os.fspath(bundle))
        parser = ConfigParser()
        parser.read_config(self.bundle / "configs" / "inference.json")
        parser.read_meta(self.bundle / "configs" / "metadata.json")
        chosen = {key.replace("__", "#"): value for key, value in overrides.items()}
        chosen |= {"bundle_root": str(self.bundle)} | ({} if device is None else {"device": str(device)})
        self._series = chosen.pop(SERIES, None)
        put_overrides(parser, {key: expand_folder(key, value) for key, value in chosen.items()}, self.bundle)
        chosen_device = parser.get_parsed_content("device")
        require_device("device", chosen_device)
        self.device = torch.device(chosen_device)
        if device is not None:
            parser["device"] = f"$torch.device({str(self.device)!r})"
        self.network = parser.get_parsed_content("network").eval()
        self.preprocessing = parser.get_parsed_content("preprocessing")
        self.inferer = parser.get_parsed_content("inferer")
        self.inferer.progress = False
        self.postprocessing = parser.get_parsed_content("postprocessing").flatten().transforms
        require_used({key: chosen[key] for key in chosen if key.replace("#", "__") in overrides}, parser)
        self._names = SavedNames([step for step in self.postprocessing if isinstance(step, SaveMapd)])

    @property
    def thresholds(self) -> dict[float, float]:
        """Threshold of the anomaly map for each calibrated false positive rate of normal pixels."""
        return dict(zip(FALSE_POSITIVE_RATES, self.network.thresholds.tolist(), strict=True))

    @property
    def finding_threshold(self) -> float:
        """What a finding reaches in the anomaly map where no other operating point is chosen."""
        return self.network.normal_scans.finding_threshold

    def __call__(
        self,
        source: Source | Sequence[Source],
        affine: np.ndarray | None = None,
        series: str | int | None = None,
        name: str | Sequence[str] | None = None,
    ) -> Prediction | list[Prediction]:
        """Find what is anomalous.

        Args:
            source: a file (or DICOM series folder), an image in memory, or a list of them. A volume is an array or
                tensor ``[X,Y,Z]`` in its scanner's units, or nibabel's image; a picture is ``[H,W]`` or ``[H,W,3]``,
                uint8, uint16 or float in [0, 1], or Pillow's image.
            affine: of an array that is a volume, ``[4,4]``, voxel indices to RAS millimetres as nibabel has it.
            series: chooses among several stacks in a DICOM folder: a number, or a shell pattern as for
                ``--infer_data#series``.
            name: what the results of an image in memory are called when they are saved, without a suffix; of a list
                one for each.

        Returns:
            A :class:`Prediction`; a list of them for a list.

        Raises:
            ValueError: the image cannot be read or scored; the message says why.
            TypeError: it is neither a file nor an image.
        """
        if isinstance(source, list | tuple):
            return list(self.stream(source, affine, series, name))
        if isinstance(source, str | os.PathLike) and isinstance(os.fspath(source), str):
            if affine is not None or name is not None:
                raise ValueError(f"{os.fspath(source)}: affine or name given; expected them of an image in memory only")
            return self._predict(os.fspath(source), os.fspath(source), series=series)
        if not isinstance(source, InMemory):
            raise TypeError(
                f"{type(source).__name__} found; expected a file, an array, a tensor, an image of Pillow or nibabel, "
                "or a list of these"
            )
        name = "array" if name is None else name
        if not isinstance(name, str) or os.path.basename(name) != name or name in ("", ".", ".."):
            raise ValueError(f"name is {name!r}; expected the name of a file, without its folder and suffix")
        with TemporaryDirectory() as folder:
            path = as_file(source, affine, Path(folder))
            return self._predict(str(path), name, digest_file(path))

    def stream(
        self,
        sources: Iterable[Source],
        affine: np.ndarray | None = None,
        series: str | int | None = None,
        name: Sequence[str] | None = None,
    ) -> Iterator[Prediction]:
        """The predictions of many images, one after the other, so that only one is in memory."""
        if name is None:
            return (self(source, affine, series) for source in sources)
        if isinstance(name, str):
            raise ValueError(f"name is {name!r} for several images; expected a name for each")
        return (self(source, affine, series, one) for source, one in zip(sources, name, strict=True))

    @torch.inference_mode()
    def _predict(self, path: str, name: str, digest: str = "", series: str | int | None = None) -> Prediction:
        series = self._series if series is None else series
        try:
            entry = {"image": path} | ({} if series is None else {"series": str(series)})
            item: dict[str, Any] = dict(self.preprocessing(entry))
        except RuntimeError as error:  # MONAI's wrapper tells the transform, its cause what is wrong with the file
            raise ValueError(explain(error).replace(path, name)) from error
        item["pred"] = self.inferer(item["image"][None], self.network)[0]
        saved: dict[str, dict[str, Any]] = {}
        for transform in self.postprocessing:
            if isinstance(transform, SaveMapd):
                saved[transform.postfixes[0]] = dict(item)
            elif not isinstance(transform, ServedMapd | SaveImaged):
                item = transform(item)
        if nothing_scored(item):
            raise ValueError(f"{name}: {NOTHING_SCORED}")
        if digest:  # what it came from is no file: its place is that of no other
            for kept in saved.values():
                kept["pred"].meta["filename_or_obj"] = os.path.join(os.sep, digest, name + Path(path).suffix)
        maps = {postfix: as_array(kept["pred"]) for postfix, kept in saved.items()}
        return Prediction(
            source=name,
            anomaly_map=maps["anomaly"],
            label_map=maps["label"],
            score=item["scan"]["image_score"],
            p_value=item["scan"]["p_value"],
            findings=item["findings"],
            thresholds=self.thresholds,
            affine=ScanGrid.from_meta(item["pred"].meta, self.network.axcodes).affine,
            _item=saved,
            _names=self._names,
            _digest=digest,
        )


def require_used(overrides: Mapping[str, Any], parser: ConfigParser) -> None:
    """Refuse overrides on which nothing depends that was made here: a person would believe that they did something."""
    made = [f"{key}#".replace(ID_SEP_KEY, "#") for key in parser.ref_resolver.resolved_content]
    for key, value in overrides.items():
        used = any(one.startswith(f"{key}#") or f"{key}#".startswith(one) for one in made)
        if key in IN_VAIN or not used:
            instead = IN_VAIN.get(key, "it is for the command line, where files are listed, fed and tabulated")
            raise ValueError(
                f"{key.replace('#', '__')} is {value!r}, and nothing depends on it when images are given from Python "
                f"({instead}); expected a key of the network or of its transforms. Leave it out"
            )


def as_array(pred: Tensor) -> np.ndarray:
    """A map on its file's grid, pictures by rows and columns."""
    array = on_scan_grid(pred)
    return array.T if is_picture(pred) else array
