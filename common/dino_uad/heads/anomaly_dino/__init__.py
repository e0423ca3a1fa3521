"""AnomalyDINO (WACV 2025): memory bank of normal patches, nearest neighbours."""

from dino_uad.heads.anomaly_dino.coreset import greedy_coreset
from dino_uad.heads.anomaly_dino.faiss_index import FaissIndex
from dino_uad.heads.anomaly_dino.head import AnomalyDinoHead
from dino_uad.heads.anomaly_dino.nearest import (
    encode_rows,
    nearest_neighbours,
    nearest_neighbours_sharded,
    search_name,
    unit_rows,
)
from dino_uad.heads.anomaly_dino.zero_shot import batched_zero_shot_scores

__all__ = [
    "AnomalyDinoHead",
    "FaissIndex",
    "batched_zero_shot_scores",
    "encode_rows",
    "greedy_coreset",
    "nearest_neighbours",
    "nearest_neighbours_sharded",
    "search_name",
    "unit_rows",
]
