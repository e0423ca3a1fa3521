"""The configs of a bundle with the settings of one cell of a comparison put in."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc import locate
from typing import Any

from monai.bundle import ConfigParser

from dino_uad.ahead import ahead
from dino_uad.bundle_run import configured, find_bundle
from dino_uad.compare.spec import BASELINES, BRIGHTNESS, INTENSITY, BackboneSpec, Method
from dino_uad.describe import describe
from dino_uad.digests import digest_code, digest_facts
from dino_uad.embeddings import entry_key
from dino_uad.overrides import check_override
from dino_uad.verbatim import verbatim
from dino_uad.whole_config import check_config

PLACES = ("bundle_root", "dataset_dir", "ckpt_dir", "output_dir", "cache_dir")
"""Keys that say where files are, and decide no number."""
LIBRARIES = ("torch", "monai", "numpy", "scipy")


@dataclass(frozen=True)
class Settings:
    """What all cells of a comparison share."""

    dataset_dir: str
    out: Path
    cache_dir: str
    image_size: int
    device: str
    epochs: int | None = None
    anomalous_labels: Sequence[int] | None = None


@dataclass(frozen=True)
class Cell:
    """One method on one backbone with one seed."""

    method: Method
    backbone: BackboneSpec
    seed: int

    @property
    def name(self) -> str:
        """Readable, and usable as a folder's name."""
        return f"{self.method.name} {self.backbone.name} {self.seed}".replace(" ", "_").replace("/", "_")

    def parser(self, workflow: str, settings: Settings, folder: Path | None = None) -> ConfigParser:
        """The configs of ``train`` or ``evaluate``; models and results go to ``folder``, where there is one yet.

        Raises:
            ValueError: ``evaluate``, and a setting that the bundle's configs do not have, or of another kind.
        """
        baseline = self.method.bundle in BASELINES
        parser = configured(
            "dpmm" if baseline else self.method.bundle,
            workflow,
            folder or settings.out,
            settings.dataset_dir,
            settings.image_size,
            cache_dir=verbatim(settings.cache_dir),
            device=f"$torch.device('{settings.device}')",
            seed=self.seed,
        )
        parser["train_data#anomalous_labels"] = settings.anomalous_labels
        for key, value in self.backbone.config().items():
            parser[f"network_def#backbone#{key}"] = value
        if baseline:
            _put_baseline(parser, self.method.bundle, settings.image_size)
        for name, value in self.method.settings.items():
            key = name if "#" in name else f"network_def#head#{name}"
            if workflow == "evaluate":  # it has the keys of both
                check_override(key, value, parser.get())
            parser[key] = value
        if settings.epochs is not None:
            parser["max_epochs"] = min(settings.epochs, parser["max_epochs"])
        if workflow == "evaluate":
            _measure_one_image_at_a_time(parser, self.method)
        check_config(parser, None)
        return parser

    def key(self, settings: Settings, data: str, weights: str) -> str:
        """Digest of everything that decides the cell's numbers: the configs as they run, and what they read.

        Args:
            settings: of the comparison.
            data: digest of the data set, :func:`data_key`.
            weights: digest of the backbone's weights.
        """
        configs = [
            {key: value for key, value in self.parser(workflow, settings).get().items() if key not in PLACES}
            for workflow in ("train", "evaluate")
        ]
        code = digest_code(libraries=LIBRARIES)
        return digest_facts([self.name, configs, data, weights, code, describe(list(named_code(configs)))])[:16]


def named_code(config: Any) -> Iterator[Any]:
    """Classes, functions and modules that a config names, by ``_target_`` and ``imports``, such as a head of yours."""
    if isinstance(config, Mapping):
        target = config.get("_target_", "")
        if "." in target:  # MONAI finds others among its own
            yield locate(target)
        for line in config.get("imports", ()):
            for step in ast.walk(ast.parse(str(line).removeprefix("$"))):
                names = [step.module] if isinstance(step, ast.ImportFrom) else []
                names += [alias.name for alias in step.names] if isinstance(step, ast.Import) else []
                yield from map(importlib.import_module, names)
    if isinstance(config, Mapping | list):
        for part in config.values() if isinstance(config, Mapping) else config:
            yield from named_code(part)


def _put_baseline(parser: ConfigParser, name: str, image_size: int) -> None:
    """The baseline's head in place of the bundle's, and for brightness its backbone; neither needs a second pass."""
    bright = name == BRIGHTNESS
    target = "dino_uad.compare.brightness.BrightnessHead" if bright else "dino_uad.heads.MeanDistanceHead"
    parser["network_def#head"] = {"_target_": target, "embed_dim": "$@network_def#backbone.embed_dim"}
    parser["max_epochs"] = 1
    if bright:
        parser["network_def#backbone"] = {
            "_target_": "dino_uad.compare.brightness.PatchBrightness",
            "patch_size": 14 if image_size % 14 == 0 else 16,  # of DINOv2, of DINOv3
        }


def _measure_one_image_at_a_time(parser: ConfigParser, method: Method) -> None:
    """``evaluate.json`` without the files that it writes."""
    parser["validate#handlers"] = []
    parser["validate#evaluator#max_batch"] = 1
    metrics = parser["validate#additional_metrics"]
    if method.bundle == INTENSITY:  # it is not fitted: there are no thresholds, and no model that knows its slices
        for key in ("pixel_dice", "pixel_interval", "label_maps"):
            del metrics[key]
        metrics["froc"]["threshold"] = None
        train = ConfigParser.load_config_file(find_bundle("dpmm") / "configs" / "train.json")
        parser["fitted_slices"] = train["slices"]
        parser["network_def"] = {"_target_": "dino_uad.compare.raw_intensity.IntensityDetector"}


def data_key(lists: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Digest of data lists: the bytes of every file, its group and class, in order; not where the files are."""
    return digest_facts([_entry_facts(data) for data in lists])


def _entry_facts(data: Sequence[dict[str, Any]]) -> list[list[Any]]:
    keys = ahead(entry_key, data)
    return [[key, entry.get("anomalous"), str(entry.get("group"))] for entry, key in zip(data, keys, strict=True)]
