"""Whether p-values keep their promise on real normal patients: observed flag rates of held-out ones, over many splits.

    python common/recipes/coverage.py DATA --bundle bundles/anomaly_dino --model MODEL.pt --image_size "[224,224]"

The model was fitted to ``train``; the normal images (slices) of ``valid`` and ``test`` are patients it has not learned
from. Their patients are parted at random, again and again, into calibration and held-out ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from scipy import stats
from torch import Tensor

from dino_uad.bundle_run import find_bundle
from dino_uad.calibrate import fitted_config, fitted_on
from dino_uad.data import datalist
from dino_uad.detector import ConformalTable, scan_scores
from dino_uad.handlers import score

LEVELS = (0.2, 0.1, 0.05)


def coverage(
    dataset_dir: str,
    bundle: str = "dpmm",
    model: str | None = None,
    splits: str | Sequence[str] = ("valid", "test"),
    share: float = 0.6,
    repeats: int = 1000,
    seed: int = 0,
    cache_dir: str | None = None,
    **overrides: Any,
) -> None:
    """Print a table: at each level, how many normal images and scans of held-out patients are flagged.

    Args:
        dataset_dir: data set with patients that the model was not fitted to.
        bundle: its bundle.
        model: the fitted model; the bundle's when None.
        splits: where those patients are.
        share: of the patients that calibrate.
        repeats: random partitions.
        seed: of these.
        cache_dir: for embeddings.
        overrides: config keys that the model does not tell, as for ``dino_uad calibrate``.
    """
    names = splits.split(",") if isinstance(splits, str) else splits
    scores, groups = normal_scores(dataset_dir, bundle, model, names, cache_dir, overrides)
    patients = np.array(sorted(set(groups)))
    member = np.searchsorted(patients, groups)
    rng, count = np.random.default_rng(seed), round(share * len(patients))
    rates = np.full((repeats, 2, len(LEVELS)), np.nan)
    for repeat in range(repeats):
        known = np.isin(member, rng.permutation(len(patients))[:count])
        rates[repeat] = flag_rates(scores, member, known)
    print(f"{len(scores)} normal images of {len(patients)} patients; {count} calibrate, {len(patients) - count} do not")
    print("| level | one | flagged, mean | 95 % of partitions | 95 % of so many patients, at exactly that rate |")
    print("|---|---|---|---|---|")
    for k, what in enumerate(("image of a patient", "scan (highest image)")):
        for level, seen in zip(LEVELS, rates[:, k].T, strict=True):
            held = len(patients) - count
            spread = np.percentile(seen, [2.5, 97.5]), stats.binom(held, level).ppf([0.025, 0.975]) / held
            cells = " | ".join(f"{low:.1%} to {high:.1%}" for low, high in spread)
            print(f"| {level:.0%} | {what} | {seen.mean():.1%} | {cells} |")


@torch.inference_mode()
def normal_scores(
    dataset_dir: str, bundle: str, model: str | None, splits: Sequence[str], cache_dir: str | None, overrides: Any
) -> tuple[Tensor, list[str]]:
    """Image scores ``[n]`` and patients of the normal images of some splits."""
    root = find_bundle(bundle)
    path = Path(model) if model else root / "models" / "model.pt"
    scans = [one for split in splits for one in datalist(dataset_dir, split, normal_only=True)]
    network, loader = fitted_on(fitted_config(root, path, overrides), scans, cache_dir)
    found, groups = [], []
    for batch in loader:
        raw = score(network, batch, "cpu")
        found.append(network.assess(raw["raw_scores"], raw["foreground"])["image_score"])
        groups += [loader.dataset.group(int(item)) for item in batch["item"]]
    return torch.cat(found), groups


def flag_rates(scores: Tensor, member: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Flagged shares ``[2, levels]`` of held-out patients: of their images, each patient counted once, and scans."""
    images, scans = ConformalTable(), ConformalTable()
    images.fit(scores[known], member[known].tolist())
    highest, names = scan_scores(scores, member.tolist())
    known_scan = np.isin(names, member[known])
    scans.fit(highest[known_scan], np.array(names)[known_scan].tolist())
    held = member[~known]
    weight = 1 / np.bincount(held)[held]
    p_images, p_scans = images.p_values(scores[~known]).numpy(), scans.p_values(highest[~known_scan]).numpy()
    return np.array(
        [
            [np.average(p_images <= level * (1 + 1e-6), weights=weight) for level in LEVELS],
            [np.mean(p_scans <= level * (1 + 1e-6)) for level in LEVELS],
        ]
    )


if __name__ == "__main__":
    fire.Fire(coverage)
