"""The heads of the bundles, with their settings, for rows that measure all four."""

from __future__ import annotations

from dino_uad.bench.settings import Settings
from dino_uad.heads import Head
from dino_uad.heads.anomaly_dino import AnomalyDinoHead
from dino_uad.heads.dino_ad import DinoADHead
from dino_uad.heads.dpmm import DPMMHead
from dino_uad.heads.spatial_ar import SpatialARHead

METHODS = {"dpmm": "DPMM", "spatial_ar": "Spatial AR", "dino_ad": "DINO-AD", "anomaly_dino": "AnomalyDINO"}


def make_head(method: str, dim: int, settings: Settings) -> Head:
    """The head with the settings of its bundle; smaller for a quick run."""
    components, hidden, clusters = settings.size((500, 256, 24), (20, 8, 2))
    if method == "dpmm":
        return DPMMHead(dim, n_components=components, reg_covar=0.1 / dim)
    if method == "spatial_ar":
        options = {"direction": "both", "covariance": "full", "standardize": True}
        return SpatialARHead(dim, hidden, dilations=(1, 1, 1, 1), **options)
    if method == "dino_ad":
        return DinoADHead(dim, clusters, n_support=10, similarity="max", normalization="none")
    return AnomalyDinoHead(dim, retrieve=20)
