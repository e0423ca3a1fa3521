"""``python -m dino_uad compare``: all methods on one data set, one embedding cache, one table."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from tqdm import tqdm

from dino_uad.backbones import DinoBackbone
from dino_uad.bundle_run import find_bundle
from dino_uad.compare.cell import Settings, run_cell
from dino_uad.compare.spec import BASELINES, BackboneSpec, Method, words
from dino_uad.compare.table import summarise, write_csv, write_markdown, write_plot
from dino_uad.compare.testset import TestSet, backbone_seconds
from dino_uad.files import atomic_path, require_writable
from dino_uad.metrics import permutation_test

logger = logging.getLogger(__name__)


def compare(
    dataset_dir: str,
    bundles: Any = "dpmm,spatial_ar,dino_ad,anomaly_dino",
    backbones: Any = "dinov2_vits14",
    seeds: Any = "0",
    out: str = "runs/compare",
    image_size: int = 448,
    epochs: int | None = None,
    baselines: bool = True,
    permutations: int = 10_000,
    device: str | None = None,
) -> dict[str, Any]:
    """Fit, evaluate and tabulate methods on one data set.

    Writes ``compare.md``, ``compare.csv``, ``compare.json`` and ``compare.png`` (accuracy against time) into ``out``.
    A cell that is already there is not run again, so a comparison that was stopped goes on where it was.

    Args:
        dataset_dir: a data set with labelled test images.
        bundles: names, with head settings if wanted: ``dpmm,dino_ad:n_clusters=1``.
        backbones: ``arch`` (last block), ``arch@8`` (block index, from 0, without the final norm), ``arch:random``.
        seeds: seeds of the fits.
        out: folder for results.
        image_size: side of the input in pixels.
        epochs: cap on the passes of the methods that iterate.
        baselines: also measure the distance to the mean embedding, and raw intensity.
        permutations: of the paired test between any two methods on one backbone; 0 leaves it out.
        device: torch device; a GPU if there is one.
    """
    device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    folder = Path(out)
    require_writable(folder)
    settings = Settings(str(dataset_dir), folder, str(folder / "cache"), image_size, device, epochs)
    methods = [Method.parse(word) for word in words(bundles)] + (
        [Method(name) for name in BASELINES] if baselines else []
    )
    specs = [BackboneSpec.parse(word) for word in words(backbones)]
    seed_list = [int(word) for word in words(seeds)]
    test = TestSet(evaluation_config(methods[0], settings))
    cells = []
    plan = list(itertools.product(specs, methods, seed_list))
    for spec, method, seed in tqdm(plan, desc="compare", unit="fit"):
        if method.bundle == "intensity" and (spec is not specs[0] or seed != seed_list[0]):
            continue
        if method.bundle == "mean_distance" and seed != seed_list[0]:
            continue
        cells.append(run_cell(method, spec, seed, settings, test))
    times = {spec.name: backbone_seconds(load(spec).to(device), image_size, device) for spec in specs}
    rows = summarise(cells, times)
    tests = paired_tests(cells, permutations) if permutations else []
    return write(folder, rows, tests, settings, {"images": len(test.items), "seeds": seed_list, "device": device})


def evaluation_config(method: Method, settings: Settings) -> ConfigParser:
    """A bundle's train and evaluation configs merged, for the data list and transforms of the test images."""
    root = find_bundle("dpmm" if method.bundle in BASELINES else method.bundle)
    parser = ConfigParser()
    parser.read_config([root / "configs" / "train.json", root / "configs" / "evaluate.json"])
    # There is no model.pt yet from which evaluate.json would take the fit's choice of slices; it is train.json's.
    slices = ConfigParser.load_config_file(root / "configs" / "train.json")["slices"]
    parser.update({"dataset_dir": settings.dataset_dir, "image_size": [settings.image_size] * 2, "slices": slices})
    return parser


def load(spec: BackboneSpec) -> DinoBackbone:
    """The backbone of a specification."""
    return DinoBackbone(**spec.config())


def paired_tests(cells: list[dict[str, Any]], permutations: int) -> list[dict[str, Any]]:
    """Paired permutation tests of pixel AUROC and AUPR between any two methods that share backbone and seed."""
    found = []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for first, second in itertools.combinations(cells, 2):
        if (first["backbone"], first["seed"]) != (second["backbone"], second["seed"]):
            continue
        counts = [torch.load(cell["histograms"], weights_only=True).to(device) for cell in (first, second)]
        row = {key: first[key] for key in ("backbone", "seed")} | {"first": first["method"], "second": second["method"]}
        for metric in ("auroc", "aupr"):
            result = permutation_test(*counts, metric=metric, permutations=permutations)
            row |= {f"{metric}_difference": result.difference, f"{metric}_p": result.p_value}
        found.append(row)
    return found


def write(
    folder: Path, rows: list[dict], tests: list[dict], settings: Settings, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write the table in its four forms and return it."""
    facts |= {"dataset": Path(settings.dataset_dir).name, "image_size": settings.image_size}
    result = {"facts": facts, "rows": rows, "paired_tests": tests}
    with atomic_path(folder / "compare.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2))
    write_csv(rows, folder / "compare.csv")
    write_markdown(result, folder / "compare.md")
    write_plot(rows, folder / "compare.png")
    print((folder / "compare.md").read_text())
    return result
