"""The demo: generated data, then train, evaluate and infer one bundle through ``monai.bundle``, and look at it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from dino_uad.bundle_run import command, find_bundle, run
from dino_uad.demo.demo_dataset import make_demo
from dino_uad.settings import require_count
from dino_uad.transforms import image_name

# What --quick makes do with: the backbone that ships with the package, and three subjects a split.
QUICK = {"arch": "dino_uad_tiny14", "image_size": [224, 224], "subjects": {"n_train": 3, "n_valid": 3, "n_test": 3}}
STRIDE = 2  # of a volume's slices, fit and evaluation take every second: half the time of the backbone


def run_demo(
    out: str = "demo",
    bundle: str = "dpmm",
    arch: str | None = None,
    epochs: int = 10,
    seed: int = 0,
    quick: bool = False,
) -> dict[str, Any]:
    """Make the demo data set in ``out/data``, fit the bundle on it, and leave results and figures in ``out``.

    Args:
        out: folder for everything the demo writes; the bundle's own folder stays untouched.
        bundle: name or folder of the bundle.
        arch: backbone; ``dinov2_vits14`` where nothing is said.
        epochs: passes over the training slices, for the methods that iterate.
        seed: seed of data and fit.
        quick: a look in about a minute and without a network: fewer scans, smaller images, the student backbone.

    Returns:
        The evaluation's ``metrics.json``.
    """
    require_count("--epochs", epochs)
    start = time.time()
    settings = QUICK if quick else {"arch": "dinov2_vits14", "subjects": {}}
    folder = Path(out).resolve()
    root = find_bundle(bundle)
    data = make_demo(folder / "data", seed=seed, **settings["subjects"])
    shared = {"ckpt_dir": str(folder / "models"), "network_def__backbone__arch": arch or settings["arch"]}
    shared |= {key: settings[key] for key in ("image_size",) if key in settings}
    volumes = data / "volumes"
    fit = {
        "dataset_dir": str(volumes),
        "slices__stride": STRIDE,
        "cache_dir": str(folder / "cache"),
        "seed": seed,
        **shared,
    }
    passes = json.loads((root / "configs" / "train.json").read_text(encoding="utf-8"))["max_epochs"]
    fit["max_epochs"] = min(passes, epochs)
    run(command(root, "train", **fit, output_dir=str(folder / "train")))
    run(command(root, "evaluate", **fit, output_dir=str(folder / "evaluation")))
    new = {"dataset_dir": str(volumes / "test"), "infer_data__pattern": "*_flair*"}
    run(command(root, "inference", **new, output_dir=str(folder / "inference"), **shared))
    volume = next(path for path in sorted((volumes / "test").glob("*_flair.nii.gz")) if label_of(path).exists())
    draw_inference(volume, folder / "inference", folder / "models" / "model.pt")
    result = json.loads((folder / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    print_metrics(result)
    print(f"\nIn {out}/, for a browser:")
    print("  inference/report.html: the test scans, the most anomalous first; beside it their anomaly and label maps")
    print("  evaluation/report.html: how well lesions were found, and how that was measured")
    print(f"  inference/{image_name(volume)}.png: one of the scans, with its lesions")
    print(f"{time.time() - start:.0f} s in all.")
    return result


def draw_inference(volume: Path, folder: Path, model: Path) -> None:
    """Draw the slice with the largest lesion: image, anomaly map, and annotation with prediction at 5 % FPR."""
    from dino_uad.detector import read_threshold
    from dino_uad.report import overview_figure
    from dino_uad.transforms import LoadScand, OrientScand, ScaleToUnitd

    stem = image_name(volume)
    item = {"image": volume, "map": folder / f"{stem}_anomaly.nii.gz", "label": label_of(volume)}
    item = OrientScand(tuple(item))(LoadScand(tuple(item))(item))
    item = ScaleToUnitd("image")(item)
    threshold = read_threshold(model, 0.05)
    spacing = item["image"].pixdim[:2].tolist()
    largest = int((item["label"] > 0).sum(dim=(0, 1, 2)).argmax())
    image, anomaly_map, label = (item[key][..., largest] for key in ("image", "map", "label"))
    overview_figure(image, anomaly_map, label, folder / f"{stem}.png", threshold, spacing)


def label_of(volume: Path) -> Path:
    """Where the demo data set keeps the label of a volume."""
    return volume.with_name(volume.name.replace("_flair", "_label"))


def print_metrics(result: dict[str, Any]) -> None:
    """Print the headline numbers of a ``metrics.json`` as a small table."""
    metrics = result["metrics"]
    rows = {
        "pixel AUROC": "pixel_auroc",
        "pixel AUPR": "pixel_aupr",
        "pixel AUPRO": "pixel_aupro",
        "Dice at 5 % FPR": "pixel_dice_fpr5",
        "image AUROC": "image_auroc",
    }
    print(f"\n{result['images']['normal']} normal and {result['images']['anomalous']} anomalous test images")
    for title, key in rows.items():
        value, low = metrics.get(key), metrics.get(f"{key}_low")
        interval = f"  (95 %: {low:.3f} to {metrics[f'{key}_high']:.3f})" if low is not None else ""
        print(f"  {title:16} {'undefined' if value is None else f'{value:.3f}'}{interval}")
    print(f"  {'time per image':16} {result['seconds_per_image']:.3f} s ({result['machine']['device']})")
