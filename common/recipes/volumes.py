"""What thresholds are worth on whole volumes: fitted to some patients, calibrated on others, counted on yet others.

Whole scans hold what slices of data sets leave out: skull base, orbits, vertex. The folder has ``train`` and ``valid``
volumes, annotations beside them. A method is fitted to the tumour-free slices of ``train`` once. The patients of
``valid`` are parted into folds; for each, units and thresholds are calibrated on the tumour-free slices of the *other*
patients, and what is said of its own is counted: no patient sets a threshold that he or she is measured by.

    python common/recipes/volumes.py data/lgg_volumes out --bundles "anomaly_dino,dpmm" --image_size 224
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fire
import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from scipy import ndimage
from torch import Tensor

from dino_uad.bundle_run import configured, run_steps
from dino_uad.detector import FALSE_POSITIVE_RATES
from dino_uad.embeddings import EmbeddingDataset, flattened
from dino_uad.engines import resize_like
from dino_uad.files import atomic_path
from dino_uad.handlers import calibrate, score

RATES = (0.05, 0.01)
SLICES_FLAGGED = 0.05  # of the tumour-free slices that are calibrated on
SMALLEST = 0.2  # ml of an annotated lesion that is counted
FOUND = 0.1  # share of a lesion's voxels above the threshold from which it counts as found


class Scan(NamedTuple):
    """What was said of the slices of one patient, in the slices' own pixels."""

    name: str
    maps: np.ndarray
    inside: np.ndarray
    label: np.ndarray
    scores: np.ndarray
    thresholds: dict[float, float]
    slice_threshold: float
    voxel_ml: float


def measure(
    dataset_dir: str, out: str, bundles: Any = "anomaly_dino,dpmm", image_size: int = 224, folds: int = 5, **overrides
) -> None:
    """Fit, cross-fit the thresholds, and write ``volumes.md`` into ``out``; models go to ``out/BUNDLE/model.pt``.

    Args:
        dataset_dir: folder with ``train`` and ``valid``.
        out: folder for models, cached embeddings and the table.
        bundles: names of bundles.
        image_size: side of the network's input in pixels.
        folds: parts of the patients of ``valid``.
        overrides: of ``train.json``, such as ``--max_epochs 20``.
    """

    def section(parser: ConfigParser) -> list[str]:
        scans = said_of_all(parser, folds)
        return [*rates(scans), "", *lesions(scans)]

    write_page("volumes.md", section, dataset_dir, Path(out), bundles, image_size, overrides)


def write_page(
    name: str,
    section: Callable[[ConfigParser], list[str]],
    dataset_dir: str,
    out: Path,
    bundles: Any,
    image_size: int,
    overrides: dict[str, Any],
) -> None:
    """Write the page ``name`` into ``out``: of each bundle, fitted, the lines that ``section`` has on it."""
    lines = []
    for bundle in bundles.split(",") if isinstance(bundles, str) else bundles:
        parser = fitted(bundle, out / bundle, dataset_dir, image_size, overrides)
        lines += [f"## {bundle}", "", *section(parser), ""]
    text = "\n".join(lines)
    with atomic_path(out / name) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def fitted(bundle: str, folder: Path, dataset_dir: str, image_size: int, overrides: dict[str, Any]) -> ConfigParser:
    """The bundle's training, after it ran; a model that is already in ``folder`` is taken."""
    parser = configured(bundle, "train", folder, dataset_dir, image_size, **overrides)
    steps = list(parser["train#preprocessing#transforms"])
    at = next(number for number, step in enumerate(steps) if "drop_anomalous" in step)
    fill = {"_target_": "dino_uad.transforms.FillLabeld", "keys": "label"}
    steps[at : at + 1] = [{**steps[at], "drop_anomalous": False}, fill]
    parser["all_slices"] = {"_target_": "Compose", "transforms": steps}
    if (folder / "model.pt").is_file():
        parser["network_def#checkpoint"] = str(folder / "model.pt")
    else:
        run_steps(parser)
    return parser


def said_of_all(parser: ConfigParser, folds: int) -> list[Scan]:
    """What is said of every patient of ``valid``, calibrated on those of other folds."""
    return [scan for fold in range(folds) for scan in said_of(parser, fold, folds)]


def said_of(parser: ConfigParser, fold: int, folds: int) -> Iterator[Scan]:
    """Calibrate on the patients outside of a fold; what is then said of each in it."""
    network, device = (parser.get_parsed_content(key) for key in ("network", "device"))
    patients = parser.get_parsed_content("val_data")
    others = [entry for number, entry in enumerate(patients) if number % folds != fold]
    normal = Volumes(embedded(parser, others, "train#preprocessing"))
    calibrate(network, normal, device)
    scored = [score(network, batch, device) for batch in normal]
    usual = torch.cat([network.assess(one["raw_scores"], one["foreground"])["image_score"] for one in scored])
    limit = float(usual.quantile(1 - SLICES_FLAGGED))
    known = dict(zip(FALSE_POSITIVE_RATES, network.thresholds.tolist(), strict=True))
    for entry in patients[fold::folds]:
        dataset = embedded(parser, [entry], "all_slices")
        one = score(network, dataset.batch(range(len(dataset))), device)
        said = network.assess(one["raw_scores"], one["foreground"])
        labels = [
            torch.as_tensor(item["label"]).as_subclass(Tensor) > 0 for item in flattened(dataset.transform(entry))
        ]
        inside = network.inside(one["foreground"]).float()
        maps, inside = (
            np.stack([resize_like(image, label)[0].numpy() for image, label in zip(images, labels, strict=True)])
            for images in (said["pred"], inside)
        )
        millilitres = float(np.prod(nib.load(entry["image"]).header.get_zooms()[:3])) / 1000
        yield Scan(
            Path(entry["image"]).name.split("_flair")[0],
            maps,
            inside > 0.5,
            torch.cat(labels).numpy(),
            said["image_score"].numpy(),
            {rate: known[rate] for rate in RATES},
            limit,
            millilitres,
        )


class Volumes:
    """Batches of a data set that are the slices of one volume each."""

    def __init__(self, dataset: EmbeddingDataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for _, items in itertools.groupby(range(len(self.dataset)), self.dataset.group):
            yield self.dataset.batch(list(items))


def embedded(parser: ConfigParser, data: Sequence[dict[str, Any]], slices: str) -> EmbeddingDataset:
    """Slices of some volumes, by a transform of the config, with cached embeddings."""
    detector, cache = (parser.get_parsed_content(key) for key in ("network_def", "cache_dir"))
    transform: Compose = parser.get_parsed_content(slices)
    return EmbeddingDataset(data, transform, detector.backbone, cache_dir=cache, foreground=detector.foreground)


def rates(scans: Sequence[Scan]) -> list[str]:
    """A row a patient: how much of the tumour-free slices is marked, and which slices are flagged."""
    head = ["patient", "slices, tumour-free", *(f"marked at {rate:.0%}" for rate in RATES)]
    rows, shares = [], [patient_shares(scan) for scan in scans]
    for scan, (*marked, _, _) in zip(scans, shares, strict=True):
        tumour = scan.label.any(axis=(1, 2))
        flagged = scan.scores >= scan.slice_threshold
        counts = f"{flagged[~tumour].sum()} of {(~tumour).sum()}", f"{flagged[tumour].sum()} of {tumour.sum()}"
        rows.append([scan.name, f"{len(tumour)}, {(~tumour).sum()}", *(f"{m:.1%}" for m in marked), *counts])
    mean, worst = np.nanmean(shares, axis=0), np.nanmax(shares, axis=0)
    rows.append(["mean of patients", "", *(f"{value:.1%}" for value in mean)])
    rows.append(["highest", "", *(f"{value:.1%}" for value in worst[: len(RATES) + 1]), ""])
    return table([*head, "tumour-free slices flagged", "slices with tumour flagged"], rows)


def patient_shares(scan: Scan) -> list[float]:
    """Shares of tumour-free slices' foreground marked at :data:`RATES`, of these slices and of the others flagged."""
    tumour = scan.label.any(axis=(1, 2))
    flagged = scan.scores >= scan.slice_threshold
    healthy = scan.inside[~tumour]
    marked = [float((scan.maps[~tumour] >= scan.thresholds[rate])[healthy].mean()) for rate in RATES]
    return [*marked, flagged[~tumour].mean(), flagged[tumour].mean() if tumour.any() else np.nan]


def lesions(scans: Sequence[Scan]) -> list[str]:
    """Lesions by volume: found, and the share of their voxels that is marked."""
    ordered = lesion_shares(scans)
    rows = []
    for part in [*np.array_split(ordered, 3), ordered]:
        cells = [f"{part[0, 0]:.1f} to {part[-1, 0]:.1f} ml", str(len(part))]
        for column in range(1, 1 + len(RATES)):
            cells += [f"{(part[:, column] >= FOUND).mean():.0%}", f"{part[:, column].mean():.0%}"]
        rows.append(cells)
    columns = [f"{what} at {rate:.0%}" for rate in RATES for what in ("found", "voxels marked")]
    return table(["annotated lesions", "count", *columns], rows)


def lesion_shares(scans: Sequence[Scan]) -> np.ndarray:
    """Volume in ml of each annotated lesion, and the shares of its voxels marked at :data:`RATES`, by volume."""
    found = []
    for scan in scans:
        numbered, count = ndimage.label(scan.label)
        for number in range(1, count + 1):
            voxels = numbered == number
            volume = voxels.sum() * scan.voxel_ml
            if volume >= SMALLEST:
                found.append((volume, *((scan.maps[voxels] >= scan.thresholds[rate]).mean() for rate in RATES)))
    return np.array(sorted(found))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """In Markdown."""
    return ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows]]


if __name__ == "__main__":
    fire.Fire(measure)
