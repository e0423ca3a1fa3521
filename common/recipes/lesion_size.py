"""How large a lesion may be before it is its own baseline: generated lesions from 1 to 70 % of the head in a slice.

A share of an image's 25th percentile is subtracted from its scores. A lesion that fills most of the foreground lifts
that percentile; what keeps it visible is the bound, the highest percentile of a normal validation image. A method is
fitted to generated heads; then one slice of others is shown with lesions of given sizes, for several shares of the
baseline, with the bound and without it. Written are ``lesion_size.md`` and ``lesion_size.png``.

    python common/recipes/lesion_size.py out --bundles "anomaly_dino,dpmm" --heads 12
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from scipy import ndimage
from torch import Tensor

from dino_uad.bundle_run import configured, run_steps
from dino_uad.demo import SPACING, Anatomy, acquire, make_anatomy, make_demo, smooth_noise
from dino_uad.detector import FALSE_POSITIVE_RATES, AnomalyDetector
from dino_uad.files import atomic_path
from dino_uad.handlers import calibrate
from dino_uad.transforms import ScaleToUnitd

SIZES = (0.0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
SHARES = (0.0, 0.5, 0.8, 1.0)
RATE = 0.05  # of false positives, at whose threshold a lesion's pixels count as marked
LEVEL = 11  # of the slice, of 24: through the lateral ventricles
SIGNAL, EDGE = 1.6, 1.5  # of a lesion relative to white matter, and its edge's width in pixels


def measure(
    out: str,
    bundles: Any = "anomaly_dino,dpmm",
    arch: str = "dinov2_vits14",
    image_size: int = 224,
    heads: int = 12,
    seed: int = 0,
    **overrides: Any,
) -> None:
    """Fit generated heads, and show lesions of all sizes in others.

    Args:
        out: folder for data, models and results.
        bundles: names of bundles.
        arch: backbone.
        image_size: side of the network's input in pixels.
        heads: how many other heads are shown, with each size of lesion.
        seed: of everything.
        overrides: of ``train.json``, such as ``--max_epochs 10``.
    """
    folder = Path(out)
    data = make_demo(folder / "data", n_train=12, n_valid=10, n_test=9, seed=seed)
    images, masks = zip(*(pair for head in range(heads) for pair in shown(head, image_size, seed)), strict=True)
    images, masks = torch.stack(images), torch.stack(masks)
    names = bundles.split(",") if isinstance(bundles, str) else list(bundles)
    results = {}
    for bundle in names:
        settings = {"network_def#backbone#arch": arch, **overrides}
        parser = configured(bundle, "train", folder / bundle, data / "slices", image_size, **settings)
        run_steps(parser)
        results[bundle] = curves(parser, images, masks)
    lines = [line for bundle in names for line in (f"## {bundle}", "", *table(results[bundle]), "")]
    with atomic_path(folder / "lesion_size.md") as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    draw(results, folder / "lesion_size.png")
    print("\n".join(lines))


def shown(number: int, image_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images ``[1,H,W]`` and lesion masks ``[1,H,W]`` bool of one head, for each of :data:`SIZES`."""
    rng = np.random.default_rng([seed, 1, number])
    anatomy = make_anatomy(rng)
    spread = spreading(anatomy, rng)
    for size in SIZES:
        noise = np.random.default_rng([seed, 2, number])  # the same scan but for the lesion
        signal, mask = with_lesion(anatomy, spread, size)
        volume = acquire(signal, anatomy.spacing, noise)
        unit = ScaleToUnitd("image")({"image": torch.from_numpy(volume.astype(np.float32))[None]})["image"]
        pair = torch.as_tensor(unit)[None, ..., LEVEL].float(), torch.from_numpy(mask)[None, None].float()
        upright = (one.transpose(-1, -2).flip((-1, -2)) for one in pair)
        image, mask = (F.interpolate(one, (image_size, image_size), mode="bilinear") for one in upright)
        yield image[0].as_subclass(Tensor), mask[0] > 0.5


def spreading(anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """When a growing lesion takes each pixel ``[X,Y]`` of the head, from 0 to 1: from a place in the brain outwards."""
    brain = anatomy.brain[..., LEVEL] & (anatomy.depth[..., LEVEL] > 10)
    candidates = np.argwhere(brain)
    centre = candidates[rng.integers(len(candidates))]
    rows, columns = np.indices(brain.shape)
    distance = np.hypot((rows - centre[0]) * SPACING[0], (columns - centre[1]) * SPACING[1])
    warped = distance + 8 * smooth_noise((*brain.shape, 1), anatomy.spacing, 12, rng)[..., 0]
    head = ndimage.binary_fill_holes(anatomy.signal[..., LEVEL] > 0.05)
    order = np.full(brain.shape, np.inf)
    order[head] = np.where(anatomy.brain[..., LEVEL], warped, warped + 1000)[head].argsort().argsort() / head.sum()
    return order


def with_lesion(anatomy: Anatomy, order: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """The signal ``[X,Y,Z]`` with a lesion in that share of the head at :data:`LEVEL`, and its mask ``[X,Y]``."""
    mask = order < size
    alpha = ndimage.gaussian_filter(mask.astype(np.float32), EDGE)[..., None]
    signal = anatomy.signal.copy()
    near = slice(LEVEL - 1, LEVEL + 2)
    effaced = np.clip(anatomy.signal[..., near], 0.3, 1)  # sulci stay visible through it
    signal[..., near] += alpha * effaced * (SIGNAL - signal[..., near])
    return signal, mask


def curves(parser: ConfigParser, images: Tensor, masks: Tensor) -> dict[tuple[float, bool], np.ndarray]:
    """For each share of the baseline, bounded or not: image score, and share of the lesion that is marked, by size."""
    network: AnomalyDetector = parser.get_parsed_content("network")
    network.eval()
    with torch.inference_mode():
        foreground = network.find_foreground(images)
        batches = zip(images.split(8), foreground.split(8), strict=True)
        raw = torch.cat([network.raw_scores(*network.embed(image), inside) for image, inside in batches])
    found = {}
    for share in SHARES:
        network.baseline.mode = share
        network.baseline.share.fill_(share)
        calibrate(network, parser.get_parsed_content("validate#dataloader"), parser.get_parsed_content("device"))
        for bounded in (True, False) if share else (True,):
            if not bounded:
                network.baseline.highest.fill_(torch.inf)
            said = network.assess(raw, foreground)
            threshold = float(network.thresholds[FALSE_POSITIVE_RATES.index(RATE)])
            marked = ((said["pred"] >= threshold) & masks).flatten(1).sum(1) / masks.flatten(1).sum(1)
            by_size = torch.stack([said["image_score"], marked]).view(2, -1, len(SIZES))
            found[share, bounded] = by_size.mean(dim=1).numpy()
    return found


def table(found: dict[tuple[float, bool], np.ndarray]) -> list[str]:
    """In Markdown: a row a share of the baseline, a column a size; image score, and share of the lesion marked."""
    rows = [["baseline", *(f"{size:.0%}" for size in SIZES)], ["---"] * (1 + len(SIZES))]
    for (share, bounded), (scores, marked) in found.items():
        cells = [
            f"{score:.1f}" + ("" if np.isnan(m) else f", {m:.0%}") for score, m in zip(scores, marked, strict=True)
        ]
        rows.append([f"{share:g}" + ("" if bounded else " without bound"), *cells])
    return ["| " + " | ".join(cells) + " |" for cells in rows]


def draw(results: dict[str, dict[tuple[float, bool], np.ndarray]], path: Path) -> None:
    """A column a method; above, the image score by size, below, the share of the lesion that is marked."""
    figure = Figure(figsize=(4 * len(results), 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(results), sharex=True, sharey="row", squeeze=False)
    for column, (bundle, found) in zip(axes.T, results.items(), strict=True):
        for (share, bounded), values in found.items():
            style = {"color": f"C{SHARES.index(share)}", "linestyle": "-" if bounded else ":", "marker": "."}
            for axis, value in zip(column, values, strict=True):
                label = f"{share:g}" if bounded else f"{share:g}, no bound"
                axis.plot(100 * np.array(SIZES), value, label=label, **style)
        column[0].set_title(bundle)
        column[1].set_xlabel("lesion, % of the head in the slice")
    axes[0, 0].set_ylabel("image score")
    axes[1, 0].set_ylabel(f"lesion marked at {RATE:.0%} FPR")
    axes[0, -1].legend(title="baseline", fontsize=7)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


if __name__ == "__main__":
    fire.Fire(measure)
