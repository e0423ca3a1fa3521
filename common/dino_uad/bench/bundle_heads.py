"""The heads of the bundles, with their settings, for rows that measure all four."""

from __future__ import annotations

from types import SimpleNamespace

from monai.bundle import ConfigParser

from dino_uad.bench.settings import Settings
from dino_uad.bundle_run import find_bundle
from dino_uad.heads import Head

METHODS = {"dpmm": "DPMM", "spatial_ar": "Spatial AR", "dino_ad": "DINO-AD", "anomaly_dino": "AnomalyDINO"}
SMALLER = {"dpmm": {"n_components": 20}, "spatial_ar": {"hidden": 8}, "dino_ad": {"n_clusters": 2}}
"""Settings of a quick run."""


def make_head(method: str, dim: int, settings: Settings) -> Head:
    """The head that a bundle's ``train.json`` describes, for embeddings of ``dim`` channels."""
    parser = ConfigParser()
    parser.read_config(find_bundle(method) / "configs" / "train.json")
    parser["network_def#backbone"] = SimpleNamespace(embed_dim=dim)
    for key, value in (SMALLER.get(method, {}) if settings.quick else {}).items():
        parser[f"network_def#head#{key}"] = value
    return parser.get_parsed_content("network_def#head")
