"""``python -m dino_uad compare``: all methods on one data set, one embedding cache, one table."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from dino_uad.backbones import DinoBackbone
from dino_uad.bundle_run import shipped_bundles
from dino_uad.compare.cell import run_cell
from dino_uad.compare.config import Cell, Settings, data_key
from dino_uad.compare.spec import BASELINES, BRIGHTNESS, NO_BACKBONE, BackboneSpec, Method, parsed, read_seed
from dino_uad.compare.stored import defined
from dino_uad.compare.table import summarise, write_csv, write_markdown, write_plot
from dino_uad.files import require_writable, write_json
from dino_uad.measure import synchronize
from dino_uad.metrics import holm, permutation_test
from dino_uad.settings import require_count, require_device
from dino_uad.torch_files import load_torch


def compare(
    dataset_dir: str,
    bundles: Any = None,
    backbones: Any = "dinov2_vits14",
    seeds: Any = "0",
    out: str = "runs/compare",
    image_size: int = 448,
    epochs: int | None = None,
    baselines: bool = True,
    permutations: int = 10_000,
    device: str | None = None,
    anomalous_labels: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Fit, evaluate and tabulate methods on one data set.

    Writes ``compare.md``, ``compare.csv``, ``compare.json`` and ``compare.png`` (accuracy against time) into ``out``.
    A cell that is already there, of the same images, settings, weights and code, is not run again: a comparison that
    was stopped goes on where it was.

    Args:
        dataset_dir: a data set with labelled test images.
        bundles: names, with head settings if wanted: ``dpmm,dino_ad:n_clusters=1``; all that are in ``bundles/`` when
            None.
        backbones: ``arch`` (the blocks that the bundle reads), ``arch@last`` (with the final norm), ``arch@8`` or
            ``arch@5+8`` (block indices, from 0, without it, joined), ``arch:random``.
        seeds: seeds of the fits.
        out: folder for results.
        image_size: side of the input in pixels.
        epochs: cap on the passes of the methods that iterate.
        baselines: also measure the distance to the mean embedding, brightness with all the steps that methods have
            around their heads, and raw intensity.
        permutations: of the paired tests between any two methods on one backbone, and of each with brightness; 0
            leaves them out.
        device: torch device; a GPU if there is one.
        anomalous_labels: values of the masks that mark anomalies, such as "[2]"; all above 0 when None.
    """
    require_count("--image_size", image_size)
    require_count("--permutations", permutations, 0)
    if epochs is not None:
        require_count("--epochs", epochs)
    device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    require_device("--device", device)
    folder = Path(out)
    require_writable(folder)
    settings = Settings(str(dataset_dir), folder, str(folder / "cache"), image_size, device, epochs, anomalous_labels)
    methods = parsed("--bundles", bundles or list(shipped_bundles()), Method.parse)
    methods += [Method(name) for name in BASELINES] if baselines else []
    specs = parsed("--backbones", backbones, BackboneSpec.parse)
    seed_list = parsed("--seeds", seeds, read_seed)
    cells = [
        Cell(method, spec, seed)
        for spec, method, seed in itertools.product(specs, methods, seed_list)
        if (method.bundle not in NO_BACKBONE or spec is specs[0])
        and (method.bundle not in BASELINES or seed == seed_list[0])
    ]
    for cell in {cell.method.name: cell for cell in cells}.values():
        cell.parser("evaluate", settings)  # which names a wrong setting before hours of other cells
    lists = cells[0].parser("evaluate", settings)
    data = data_key([lists.get_parsed_content(split) for split in ("train_data", "val_data", "test_data")])
    results, times = [], {}
    for cell in tqdm(cells, desc="compare", unit="fit"):
        if cell.backbone.name not in times:
            backbone: DinoBackbone = cell.parser("train", settings).get_parsed_content("network_def#backbone")
            times[cell.backbone.name] = backbone_seconds(backbone.to(device), image_size, torch.device(device))
        results.append(run_cell(cell, settings, cell.key(settings, data, backbone.identity)))
    rows = summarise(results, times)
    tests = paired_tests(results, permutations) if permutations else []
    facts = {"images": results[0]["images"], "seeds": seed_list, "device": device}
    return write(folder, rows, tests, settings, facts)


@torch.inference_mode()
def backbone_seconds(backbone: DinoBackbone, image_size: int, device: torch.device) -> float:
    """Median seconds of one image through the backbone, batch 1, of five after one warm-up."""
    image = torch.rand(1, 1, image_size, image_size, device=device)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        backbone(image)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return median(times[1:])


def paired_tests(cells: list[dict[str, Any]], permutations: int) -> list[dict[str, Any]]:
    """Paired permutation tests of pixel AUROC and AUPR: any two methods that share backbone and seed, or brightness.

    Whole patients are swapped, where the files' names tell them. ``…_p_holm`` is adjusted for all pairs of methods of
    one backbone and seed, each metric for itself; ``…_p`` is as if a pair were the only one.
    """
    found = []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for first, second in itertools.combinations(cells, 2):
        if not _are_tested(first, second):
            continue
        counts = [load_torch(cell["levels"]).to(device) for cell in (first, second)]
        backbone = max(first["backbone"], second["backbone"])  # "-", of brightness, sorts before any name
        row = {"backbone": backbone, "seed": first["seed"], "patients": len(counts[0])}
        row |= {"first": first["method"], "second": second["method"]}
        for metric in ("auroc", "aupr"):
            result = permutation_test(*counts, metric=metric, permutations=permutations)
            row |= {f"{metric}_difference": result.difference, f"{metric}_p": result.p_value}
        found.append(row)
    for setting in dict.fromkeys((row["backbone"], row["seed"]) for row in found):
        family = [row for row in found if (row["backbone"], row["seed"]) == setting]
        for metric in ("auroc", "aupr"):
            for row, p in zip(family, holm([row[f"{metric}_p"] for row in family]), strict=True):
                row[f"{metric}_p_holm"] = p
    return found


def _are_tested(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two cells are of one backbone and seed, or one of them is brightness, which needs no backbone."""
    backbones = {first["backbone"], second["backbone"]}
    comparable = len(backbones) == 1 or BRIGHTNESS in (first["method"], second["method"])
    return first["seed"] == second["seed"] and comparable and backbones != {"-"}


def write(
    folder: Path, rows: list[dict], tests: list[dict], settings: Settings, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write the table in its four forms and return it."""
    facts |= {"dataset": Path(settings.dataset_dir).name, "image_size": settings.image_size}
    result = {"facts": facts, "rows": rows, "paired_tests": tests}
    write_json(defined(result), folder / "compare.json")
    write_csv(rows, folder / "compare.csv")
    write_markdown(result, folder / "compare.md")
    write_plot(rows, folder / "compare.png")
    print((folder / "compare.md").read_text(encoding="utf-8"))
    return result
