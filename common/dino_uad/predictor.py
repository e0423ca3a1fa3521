"""A fitted bundle as a Python object: ``dino_uad.load("bundles/dpmm")("scan.nii.gz")`` gives map, label map, score."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import SaveImaged
from PIL import Image
from torch import Tensor

from dino_uad.bundle_run import find_bundle
from dino_uad.detector import FALSE_POSITIVE_RATES
from dino_uad.errors import explain
from dino_uad.findings import Finding, ScanGrid
from dino_uad.overrides import check_override
from dino_uad.transforms import NOTHING_SCORED, SaveMapd, ServedMapd, is_picture, nothing_scored, on_scan_grid

Source = str | os.PathLike[str] | np.ndarray


@dataclass(frozen=True)
class Prediction:
    """What a bundle finds in one image or volume, on the grid of its file.

    A picture's arrays are ``[W,H]``-transposed to ``[H,W]``, as pillow and matplotlib have them; a volume's are
    ``[X,Y,Z]``, as nibabel has them.
    """

    source: str
    """The file, or ``"array"``."""
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

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write the maps that ``inference.json`` writes, byte for byte; returns their paths."""
        written = []
        for postfix, item in self._item.items():
            saved = SaveMapd("pred", folder, postfix)(item)
            written.append(Path(saved["pred"].meta["saved_to"]))
        return written


class Predictor:
    """Runs the ``inference.json`` of a fitted bundle: the same transforms, network and thresholds, one image at a time.

    Args:
        bundle: folder of the bundle, or the name of one in ``bundles/``.
        device: where the network runs, such as ``"cuda:0"``; the config's choice (first GPU, else CPU) when None.
        overrides: config keys with ``#`` written as ``__``: ``image_size=[224, 224]``,
            ``displayable_configs__false_positive_rate="1 %"``. What the model was fitted with must be given here too.

    Raises:
        FileNotFoundError: no such bundle, or it has no ``model.pt`` yet.
        ValueError: an override names a key that the config does not have, or the model was fitted with other
            settings; they are named.
    """

    def __init__(self, bundle: str | os.PathLike[str], device: str | torch.device | None = None, **overrides: Any):
        self.bundle = find_bundle(os.fspath(bundle))
        parser = ConfigParser()
        parser.read_config(self.bundle / "configs" / "inference.json")
        parser.read_meta(self.bundle / "configs" / "metadata.json")
        chosen = {key.replace("__", "#"): value for key, value in overrides.items()}
        chosen |= {"bundle_root": str(self.bundle)} | ({} if device is None else {"device": str(device)})
        for key, value in chosen.items():
            check_override(key, value, parser.get())
            parser[key] = value
        self.device = torch.device(parser.get_parsed_content("device"))
        if device is not None:
            parser["device"] = f"$torch.device({str(self.device)!r})"
        self.network = parser.get_parsed_content("network").eval()
        self.preprocessing = parser.get_parsed_content("preprocessing")
        self.inferer = parser.get_parsed_content("inferer")
        self.inferer.progress = False
        self.postprocessing = parser.get_parsed_content("postprocessing").flatten().transforms

    @property
    def thresholds(self) -> dict[float, float]:
        """Threshold of the anomaly map for each calibrated false positive rate of normal pixels."""
        return dict(zip(FALSE_POSITIVE_RATES, self.network.thresholds.tolist(), strict=True))

    @property
    def finding_threshold(self) -> float:
        """What a finding reaches in the anomaly map where no other operating point is chosen."""
        return self.network.normal_scans.finding_threshold

    def __call__(
        self, source: Source | Sequence[Source], affine: np.ndarray | None = None
    ) -> Prediction | list[Prediction]:
        """Find what is anomalous.

        Args:
            source: a file (or DICOM series folder), an array, or a list of them. A volume is an array ``[X,Y,Z]`` in
                its scanner's units; a picture is ``[H,W]`` or ``[H,W,3]``, uint8, uint16 or float in [0, 1].
            affine: of an array that is a volume, ``[4,4]``, voxel indices to RAS millimetres as nibabel has it.

        Returns:
            A :class:`Prediction`; a list of them for a list.

        Raises:
            ValueError: the image cannot be read or scored; the message says why.
        """
        if isinstance(source, list | tuple):
            return [self(one, affine) for one in source]
        if not isinstance(source, np.ndarray):
            return self._predict(os.fspath(source), os.fspath(source))
        with TemporaryDirectory() as folder:
            return self._predict(written(source, affine, Path(folder)), "array")

    def stream(self, sources: Sequence[Source]) -> Iterator[Prediction]:
        """The predictions of many images, one after the other, so that only one is in memory."""
        return (self(source) for source in sources)

    @torch.inference_mode()
    def _predict(self, path: str, name: str) -> Prediction:
        try:
            item: dict[str, Any] = dict(self.preprocessing({"image": path}))
        except RuntimeError as error:  # MONAI's wrapper tells the transform, its cause what is wrong with the file
            raise ValueError(explain(error)) from error
        item["pred"] = self.inferer(item["image"][None], self.network)[0]
        saved: dict[str, dict[str, Any]] = {}
        for transform in self.postprocessing:
            if isinstance(transform, SaveMapd):
                saved[transform.postfixes[0]] = dict(item)
            elif not isinstance(transform, ServedMapd | SaveImaged):
                item = transform(item)
        if nothing_scored(item):
            raise ValueError(f"{name}: {NOTHING_SCORED}")
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
        )


def as_array(pred: Tensor) -> np.ndarray:
    """A map on its file's grid, pictures by rows and columns."""
    array = on_scan_grid(pred)
    return array.T if is_picture(pred) else array


def written(array: np.ndarray, affine: np.ndarray | None, folder: Path) -> str:
    """Put an array into a file, so that it walks the same road as one that was found there; returns the path.

    Raises:
        ValueError: it is neither a picture nor a volume, or a volume without an affine.
    """
    picture = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 3 and affine is None)
    if picture:
        path = folder / ("array.png" if array.dtype in (np.uint8, np.uint16) else "array.tif")
        floating = np.issubdtype(array.dtype, np.floating)
        if not floating and path.suffix == ".tif":
            raise ValueError(f"picture of {array.dtype} found; expected uint8, uint16, or floats in [0, 1]")
        if path.suffix == ".tif" and (array.ndim == 3 or array.min() < 0 or array.max() > 1):
            raise ValueError("picture of floats found that is not [H,W] in [0, 1]; scale it, or give uint8")
        Image.fromarray(array.astype(np.float32) if floating else array).save(path)
        return str(path)
    if array.ndim != 3 or affine is None or np.shape(affine) != (4, 4):
        raise ValueError(
            f"array of shape {list(array.shape)} with affine of shape {np.shape(affine)} found; expected a volume "
            "[X,Y,Z] with a [4,4] affine (nibabel's: image.get_fdata(), image.affine), or a picture without one"
        )
    nib.save(nib.Nifti1Image(np.asarray(array, np.float32), np.asarray(affine, float)), folder / "array.nii")
    return str(folder / "array.nii")
