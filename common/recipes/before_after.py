"""The picture of common/docs/methods/shared_stage.md: maps of generated heads without the shared stage and with it.

A method is fitted to generated heads twice: as published (last block, no foreground, no neighbourhood, no baseline, the
method's own units) and with the bundle's settings. Test slices of other heads follow, some healthy, some with a lesion.

    python common/recipes/before_after.py out --bundle anomaly_dino
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from dino_uad.bundle_run import configured, run_steps
from dino_uad.demo import make_demo
from dino_uad.files import atomic_path
from dino_uad.transforms import InPlaneResized, LoadScand, OrientScand, ScaleToUnitd

OFF = {
    "network_def#backbone#layers": [-1],
    "network_def#backbone#final_norm": True,
    "network_def#backbone#joined": False,
    "network_def#foreground": "none",
    "network_def#neighbourhood": 1,
    "network_def#baseline": 0.0,
    "network_def#units": False,
}
HEALTHY, WITH_LESION = 2, 4  # slices shown
HIGHEST = 5  # end of the colour bar in the common units: one in a hundred thousand normal patches


def draw(out: str, bundle: str = "anomaly_dino", image_size: int = 224, seed: int = 0, **overrides: Any) -> None:
    """Fit, map, and write ``before_after.png`` into ``out``.

    Args:
        out: folder for data, models and the figure.
        bundle: name of the bundle.
        image_size: side of the network's input in pixels.
        seed: of the generated heads.
        overrides: of ``train.json``, such as ``--network_def#backbone#arch dino_uad_tiny14``.
    """
    folder = Path(out)
    data = make_demo(folder / "data", n_train=12, n_valid=10, n_test=9, seed=seed) / "slices"
    images, labels = shown(data / "test", image_size)
    maps = []
    for name, steps in (("before", OFF), ("after", {})):
        parser = configured(bundle, "train", folder / name, data, image_size, **{**steps, **overrides})
        run_steps(parser)
        with torch.inference_mode():
            maps.append(parser.get_parsed_content("network").eval()(images)[:, 0].numpy())
    figure = Figure(figsize=(1.6 * len(images) + 1, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(images))
    ranges = [(0, 1), (maps[0].min(), maps[0].max()), (0, HIGHEST)]
    titles = ["image", "without the stage", "with it"]
    for row, values, limits, title in zip(axes, [images[:, 0].numpy(), *maps], ranges, titles, strict=True):
        colours = "gray" if title == "image" else "inferno"
        for axis, value, label in zip(row, values, labels, strict=True):
            drawn = axis.imshow(value, cmap=colours, vmin=limits[0], vmax=limits[1])
            if label.any():
                axis.contour(label[0], levels=[0.5], colors="cyan", linewidths=0.6)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(title)
        if title != "image":
            figure.colorbar(drawn, ax=list(row), shrink=0.8)
    with atomic_path(folder / "before_after.png") as temporary:
        figure.savefig(temporary, dpi=80)


def shown(folder: Path, image_size: int) -> tuple[Tensor, np.ndarray]:
    """Some test slices ``[n,1,H,W]`` in [0, 1], the healthy ones first, and their lesions ``[n,1,H,W]``."""
    healthy = sorted((folder / "good" / "img").glob("*.png"))
    ill = sorted((folder / "Ungood" / "img").glob("*.png"))
    chosen = [*spread(healthy, HEALTHY), *spread(ill, WITH_LESION)]
    images, labels = [], []
    for path in chosen:
        label = path.parents[1] / "label" / path.name
        item = {"image": str(path)} | ({"label": str(label)} if label.exists() else {})
        keys = tuple(item)
        item = OrientScand(keys)(LoadScand(keys)(item))
        item = InPlaneResized(keys, (image_size, image_size))(ScaleToUnitd("image")(item))
        images.append(torch.as_tensor(item["image"]).as_subclass(Tensor).float())
        labels.append(np.asarray(item["label"] if "label" in item else 0 * item["image"]) > 0)
    return torch.stack(images), np.stack(labels)


def spread(paths: list[Path], count: int) -> list[Path]:
    """So many of them, evenly."""
    return [paths[(2 * i + 1) * len(paths) // (2 * count)] for i in range(count)]


if __name__ == "__main__":
    fire.Fire(draw)
