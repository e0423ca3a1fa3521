"""``python -m dino_uad prepare``: labelled volumes to a slice data set in BMAD's layout, split by patient."""

from __future__ import annotations

import logging
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dino_uad.data.case import Options
from dino_uad.data.cases import understand
from dino_uad.data.folder_list import datalist
from dino_uad.files import new_folder, write_json
from dino_uad.transforms import ExtractSlicesd, InPlaneResized, LoadScand, OrientScand, ScaleToUnitd
from dino_uad.versions import package_versions

logger = logging.getLogger(__name__)


def prepare(
    source: str,
    out: str,
    *,
    axcodes: str = "PLS",
    preset: str | None = None,
    start: int = 0,
    stop: int | None = None,
    stride: int = 1,
    min_foreground: float = 0.05,
    window: Sequence[float] | None = None,
    size: int | None = None,
    valid_fraction: float = 0.15,
    test_fraction: float = 0.2,
    seed: int = 0,
    pattern: str = "*",
    mask_pattern: str | None = None,
    anomalous_labels: Sequence[int] | None = None,
    group_pattern: str | None = None,
    anonymous_names: bool = False,
    on_error: str = "raise",
) -> dict:
    """Turn a folder of volumes with labels into a folder of 8-bit slices that every bundle trains and evaluates on.

    The new folder holds ``train/good/*.png`` (normal slices only), ``{valid,test}/{good,Ungood}/{img,label}/*.png`` and
    ``dataset.json`` (counts, parameters, versions; no name of a file or patient). No patient is in two splits. Volumes
    without label count as normal. It appears only when it is complete.

    Args:
        source: folder of volumes (NIfTI, NRRD, MHA, DICOM folders) with ``*_label`` or ``*_seg`` volumes.
        out: new folder.
        axcodes: "PLS" for axial, "ILP" for coronal, "IPL" for sagittal slices.
        preset: "brats_flair" (axial slices 60 to 99) or "liver_ct" (only the liver), as BMAD chose its slices.
        start: first slice.
        stop: slice before which to stop.
        stride: take every stride-th slice.
        min_foreground: leave out slices with a smaller fraction of pixels above 0.
        window: Hounsfield window (low, high) for CT; without it percentiles.
        size: side of square slices; without it the volume's own.
        valid_fraction: share of the patients for validation.
        test_fraction: share of the patients for the test.
        seed: of the split.
        pattern: shell pattern of the image files, e.g. "*t2f*".
        mask_pattern: shell pattern of the masks, as ``datalist`` has it; says that they mark anomalies.
        anomalous_labels: values of the masks that mark anomalies, such as "[2]"; all above 0 when None.
        group_pattern: regular expression that finds the patient in a file name.
        anonymous_names: name slices p0001_012.png instead of by their volume.
        on_error: "raise", or "skip" to leave out unreadable volumes with a log entry.

    Returns:
        What ``dataset.json`` holds.

    Raises:
        ValueError: ``out`` is not empty, or the data cannot be used (see ``datalist``).
        FileNotFoundError: no such source folder.
    """
    slicing = {
        "axcodes": axcodes,
        "preset": preset,
        "start": start,
        "stop": stop,
        "stride": stride,
        "min_foreground": min_foreground,
        "window": window,
        "size": size,
    }
    splitting = {
        "valid_fraction": valid_fraction,
        "test_fraction": test_fraction,
        "seed": seed,
        "pattern": pattern,
        "mask_pattern": mask_pattern,
        "anomalous_labels": anomalous_labels,
        "group_pattern": group_pattern,
        "on_error": on_error,
    }
    splits = _splits(source, splitting)
    transform = _transform(**slicing)
    names = _names([item for items in splits.values() for item in items], anonymous_names, seed)
    counts: Counter[str] = Counter()
    with new_folder(out) as folder:
        for split, items in splits.items():
            for item in tqdm(items, desc=f"prepare {split}", unit="volume"):
                counts += write_slices(
                    transform(item), folder / split, names[item["image"]], normal_only=split == "train"
                )
        for split in splits:
            if not counts[f"{split}/good"]:
                raise ValueError(
                    f"{source}: no normal slice in {split} (found {dict(counts)}); lower min_foreground or add volumes"
                )
        summary = _summary(counts, splits, {**slicing, **splitting, "anonymous_names": anonymous_names})
        write_json(summary, folder / "dataset.json")
    return summary


def _summary(
    counts: Mapping[str, int], splits: Mapping[str, Sequence[dict]], parameters: dict[str, Any]
) -> dict[str, Any]:
    """What ``dataset.json`` says of the new folder."""
    versions = package_versions(("monai", "torch", "numpy", "nibabel")) | {"python": platform.python_version()}
    return {
        "slices": dict(sorted(counts.items())),
        "volumes": {split: len(items) for split, items in splits.items()},
        "patients": {split: len({item["group"] for item in items}) for split, items in splits.items()},
        "parameters": parameters,
        "versions": versions,
    }


def _splits(source: str, options: dict[str, Any]) -> dict[str, list[dict]]:
    """The volumes of each split; without a labelled anomaly there is no test split."""
    splits = {split: datalist(source, split, kind="3d", **options) for split in ("train", "valid")}
    settings = {key: value for key, value in options.items() if key != "on_error"}
    if any(case.split == "test" for case in understand(Path(source), Options(kind="3d", **settings)).cases):
        return {**splits, "test": datalist(source, "test", kind="3d", **options)}
    logger.warning("no labelled anomaly in %s: train and valid only, no test split", source)
    return splits


def _transform(
    axcodes: str,
    preset: str | None,
    start: int,
    stop: int | None,
    stride: int,
    min_foreground: float,
    window: Sequence[float] | None,
    size: int | None,
) -> Callable[[dict], list[dict]]:
    keys = ("image", "label")
    steps = [
        LoadScand(keys, allow_missing_keys=True),
        OrientScand(keys, axcodes, allow_missing_keys=True),
        ScaleToUnitd("image", mode="auto" if window is None else "window", window=window),
        ExtractSlicesd(keys, -1, start, stop, stride, min_foreground, preset=preset),
    ]
    if size is not None:
        steps.append(InPlaneResized(keys, size, ("bilinear", "nearest"), allow_missing_keys=True))
    return Compose(steps)


def _names(items: list[dict], anonymous: bool, seed: int) -> dict[str, str]:
    """Name each volume by its patient: volume path -> unique start of its slices' file names."""
    groups = sorted({item["group"] for item in items})
    if anonymous:
        order = np.random.default_rng(seed).permutation(len(groups))
        patients = {group: f"p{number + 1:04d}" for group, number in zip(groups, order, strict=True)}
    else:
        patients = {group: group.replace("/", "_") for group in groups}
    total = Counter(item["group"] for item in items)
    seen: Counter[str] = Counter()
    names = {}
    for item in items:
        group = item["group"]
        seen[group] += 1
        names[item["image"]] = patients[group] + (f"-{seen[group]}" if total[group] > 1 else "")
    if len(set(names.values())) < len(names):
        raise ValueError("patients whose names differ by / and _ only would share file names; use anonymous_names")
    return names


def write_slices(slices: list[dict], folder: Path, name: str, normal_only: bool) -> Counter[str]:
    """Write a volume's slices below a split's folder; return the number of slices by ``split/class``."""
    counts: Counter[str] = Counter()
    for item in slices:
        label = item.get("label")
        anomalous = label is not None and bool((label > 0).any())
        if normal_only and anomalous:
            continue
        kind = "Ungood" if anomalous else "good"
        file = f"{name}_{item['slice_index'] or 0:03d}.png"
        _write_png(item["image"], folder / kind / ("" if normal_only else "img") / file)
        if not normal_only:
            _write_png(item["image"][:1] * 0 if label is None else (label > 0), folder / kind / "label" / file)
        counts[f"{folder.name}/{kind}"] += 1
    return counts


def _write_png(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = image.as_subclass(Tensor)[0].float().clamp(0, 1).numpy()
    Image.fromarray(np.rint(array * 255).astype(np.uint8)).save(path)
