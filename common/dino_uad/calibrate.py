"""``python -m dino_uad calibrate``: a fitted or received model's thresholds and p-values, for a site's own scans."""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from dino_uad.ahead import ahead
from dino_uad.bundle_run import find_bundle
from dino_uad.data import datalist
from dino_uad.detector import (
    AnomalyDetector,
    fingerprint,
    fitted_slices,
    flagged_shares,
    read_fitted_images,
    read_model,
)
from dino_uad.embeddings import EmbeddingLoader, identify
from dino_uad.files import atomic_path, save_torch, write_json
from dino_uad.handlers import ScanTally, score
from dino_uad.handlers import calibrate as calibrate_network
from dino_uad.overrides import put_overrides
from dino_uad.settings import require_device
from dino_uad.verbatim import verbatim

BACKBONE_FACTS = ("arch", "layers", "joined", "final_norm")
NETWORK_FACTS = ("foreground", "neighbourhood", "baseline", "units", "smoothing_sigma")
"""Facts of the fit in a model's fingerprint, by their config keys below ``network_def``."""
DATA_OPTIONS = (
    "pattern",
    "kind",
    "normal",
    "mask_pattern",
    "anomalous_labels",
    "image_pattern",
    "group_pattern",
    "series",
)
"""Keys of ``train_data`` that say how to read a folder."""

AFTER = (
    "Measured on the scans that calibrated, where these shares follow from their number alone: they do not tell how "
    "often other normal scans are flagged. That takes scans which calibrated nothing"
)
"""Printed below the shares after a calibration: they follow from ranks among the calibration scans alone, whatever the
scores, and leaving each scan out of its own comparison would not change that."""

logger = logging.getLogger(__name__)


def calibrate(
    dataset_dir: str,
    bundle: str = "dpmm",
    model: str | None = None,
    out: str | None = None,
    replace: bool = False,
    cache_dir: str | None = None,
    device: str | None = None,
    on_error: str = "skip",
    **overrides: Any,
) -> dict[str, Any]:
    """Calibrate a model on normal scans, for example of another scanner, without fitting it again.

    What was learned stays; units, thresholds, p-values and the free-response operating point are taken from these
    scans, all slices of each. The new model is ``calibrated/model.pt`` beside the old one, with ``calibration.json``,
    which says how many of the scans were flagged before, and are now by construction. Use it with
    ``--ckpt_dir …/models/calibrated``.

    Images that the model was fitted to, known by their files' bytes, are left out with a warning: they score lower than
    new ones, so thresholds from them would promise what does not hold.

    Args:
        dataset_dir: folder of normal pictures or volumes; annotated slices of labelled volumes are left out.
        bundle: folder of a bundle, or the name of one in ``bundles/``.
        model: the fitted model; the bundle's ``models/model.pt`` when None.
        out: folder for the new one; ``calibrated`` beside the old one when None.
        replace: put the new one in the old one's place too, and keep that as ``model.pt.before``.
        cache_dir: folder to keep embeddings in; they stay in memory when None.
        device: torch device; a GPU if there is one.
        on_error: ``"skip"`` leaves out files that cannot be read, named in the log; ``"raise"`` ends there.
        overrides: config keys of ``train.json``: what the fit was run with and the model does not tell, such as
            ``--network_def#head#hidden 64``, or how to read the folder, such as ``--train_data#group_pattern``.

    Raises:
        FileNotFoundError: no such folder, bundle or model.
        ValueError: the model was fitted with other settings than these, which are named, or to all of these images.
    """
    root = find_bundle(bundle)
    path = Path(model) if model else root / "models" / "model.pt"
    folder = Path(out) if out else path.parent / "calibrated"
    if (folder / "model.pt").absolute() == path.absolute():
        raise ValueError(
            f"out is {folder}, where the old model is; choose another folder, or --replace to take its place"
        )
    if device is not None:
        require_device("--device", device)
    torch_device = torch.device(device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
    parser = fitted_config(root, path, overrides)
    reading = {key: value for key, value in parser["train_data"].items() if key in DATA_OPTIONS}
    listed = datalist(dataset_dir, "all", normal_only=True, **reading)
    scans = not_fitted_to(listed, path)
    parser["on_error"], parser["device"] = on_error, torch_device
    network, loader = fitted_on(parser, scans, cache_dir)
    network.to(torch_device)
    before = measured(network, loader, torch_device)
    calibrate_network(network, loader, torch_device)
    after = measured(network, loader, torch_device)
    normal = network.normal_scans
    result = {
        "scans": len({loader.dataset.entry(item)["image"] for item in range(len(loader.dataset))}),
        "groups": int(normal.scans.groups),
        "slices": len(loader.dataset),
        "left_out": len(listed) - len(scans),
        "before": before,
        "after": after,
        "after_is": AFTER,
        "promises": normal.promises(),
    }
    save_torch({key: value.cpu() for key, value in network.state_dict().items()}, folder / "model.pt")
    write_json(result, folder / "calibration.json")
    if replace:
        with atomic_path(kept_name(path)) as temporary:
            shutil.copyfile(path, temporary)
        with atomic_path(path) as temporary:
            shutil.copyfile(folder / "model.pt", temporary)
    print(told(result, path if replace else folder / "model.pt"))
    return result


def not_fitted_to(scans: Sequence[Mapping[str, Any]], path: Path) -> list[Mapping[str, Any]]:
    """The entries whose images are none that a model was fitted to.

    Raises:
        ValueError: none are left.
    """
    fitted = read_fitted_images(path)
    if not fitted:
        logger.warning(
            f"{path} does not tell which images it was fitted to: if these are among them, the thresholds are too low"
        )
        return list(scans)
    new = [scan for scan, one in zip(scans, ahead(identify, scans), strict=True) if one.image not in fitted]
    if not new:
        raise ValueError(
            f"{path} was fitted to all of these {len(scans)} normal scans: what they score says nothing of new ones; "
            "calibrate with scans that the model has not seen"
        )
    if len(new) < len(scans):
        logger.warning(f"{len(scans) - len(new)} of {len(scans)} scans are left out: the model was fitted to them")
    return new


def fitted_config(root: Path, path: Path, overrides: Mapping[str, Any]) -> ConfigParser:
    """``train.json`` with the settings that a model says it was fitted with, and all slices of each volume."""
    parser = ConfigParser()
    parser.read_config(root / "configs" / "train.json")
    facts = fingerprint.decode(read_model(path, mmap=True).get("fingerprint", torch.zeros(0, dtype=torch.uint8)))
    told_by_model = {f"network_def#backbone#{key}": facts[key] for key in BACKBONE_FACTS if key in facts}
    told_by_model |= {f"network_def#{key}": facts[key] for key in NETWORK_FACTS if key in facts}
    told_by_model |= {f"network_def#head#{key}": value for key, value in facts.get("head", {}).items()}
    told_by_model |= {key: facts[key] for key in ("image_size",) if key in facts}
    told_by_model |= {key: value for key, value in facts.get("preprocessing", {}).items() if key in parser.get()}
    told_by_model["slices"] = {**parser["slices"], **fitted_slices(path), "stride": 1}
    told_by_model |= {"bundle_root": verbatim(str(root)), "network_def#checkpoint": verbatim(str(path))}
    parser.update(told_by_model)
    put_overrides(parser, overrides, root)
    return parser


def fitted_on(
    parser: ConfigParser, scans: Sequence[Mapping[str, Any]], cache_dir: str | None
) -> tuple[AnomalyDetector, EmbeddingLoader]:
    """The network of a :func:`fitted_config`, and the embeddings of normal scans that are not the fit's."""
    # A tuple, into which the parser does not look: names of files and patients are no part of a config.
    parser["val_data"], parser["cache_dir"] = tuple(scans), cache_dir and verbatim(cache_dir)
    parser["validate#dataset#stand_in"] = None  # there are no training images here
    return parser.get_parsed_content("network_def").eval(), parser.get_parsed_content("validate#dataloader")


@torch.inference_mode()
def measured(network: AnomalyDetector, loader: Any, device: torch.device) -> dict[str, Any]:
    """Shares of the loader's normal scans that the network, as it is calibrated now, flags or marks."""
    if not network.normal_scans.scans.calibrated:
        return {}
    tally = ScanTally(loader, device)
    for batch in loader:
        found = score(network, batch, device)
        said = network.assess(found["raw_scores"].to(device), found["foreground"].to(device))
        tally.add(batch, said["image_score"], said["pred"], network.grid_size)
    scores, groups, maps, _ = tally.gathered(network.grid_size)
    return flagged_shares(network.normal_scans, scores, groups, maps)


def kept_name(path: Path) -> Path:
    """A name beside a model that no earlier one was kept under; not ``*.pt``, which MONAI Label takes for a model."""
    names = (path.with_name(f"{path.name}.before{number or ''}") for number in itertools.count())
    return next(name for name in names if not name.exists())


def told(result: Mapping[str, Any], path: Path) -> str:
    """The result in words."""
    lines = [f"normal scans: {result['scans']}, patients: {result['groups']}, slices: {result['slices']}", ""]
    lines.append(f"{'share of these normal scans':44} {'before':>9} {'after *':>9}")
    for name, value in result["after"].items():
        old = result["before"].get(name)
        cells = ["–" if one is None else f"{one:.1%}" for one in (old, value)]
        lines.append(f"{name:44} {cells[0]:>9} {cells[1]:>9}")
    return "\n".join([*lines, "", f"* {result['after_is']}.", "", *result["promises"], f"wrote {path}"])
