"""Ranks that calibrate one fitted model learn what one process does: they differ in what they fit alone."""

from functools import partial

import torch

from dino_uad import parallel
from dino_uad.backbones import DinoBackbone
from dino_uad.detector import AnomalyDetector
from dino_uad.handlers.calibration import calibrate
from dino_uad.heads.spatial_ar import SpatialARHead
from helpers import SIZE
from workflows import run_in_group


def calibrated(folder):
    """Calibrate a detector on this rank's share of two batches, 3 and 5 normal images."""
    torch.manual_seed(0)
    frozen = DinoBackbone("dino_uad_tiny14", layers=[0], final_norm=False, weights="random")
    head = SpatialARHead(frozen.embed_dim, hidden=4, dilations=(1,), covariance="full")
    network = AnomalyDetector(frozen, head, SIZE, smoothing_sigma=1.0, baseline="auto", units=True)
    embeddings, cls = torch.randn(8, frozen.embed_dim, 4, 4), torch.randn(8, frozen.embed_dim)
    head.batches_seen += 1
    head.measure_residuals(embeddings)
    head.end_measuring()
    batches = [{"embedding": embeddings[part], "cls": cls[part]} for part in (slice(3), slice(3, 8))]
    with parallel.process_group("cpu"):
        here, world = parallel.rank(), parallel.world_size()
        mine = [{key: value.tensor_split(world)[here] for key, value in batch.items()} for batch in batches]
        calibrate(network, mine, "cpu")
    torch.save(network.state_dict(), folder / f"{here}.pt")


def test_ranks_calibrate_one_model_alike(tmp_path):
    for world in (1, 4):
        (tmp_path / str(world)).mkdir()
        assert run_in_group(world, partial(calibrated, tmp_path / str(world))) == [0] * world
    one = torch.load(tmp_path / "1/0.pt", weights_only=True)
    for rank in range(4):
        found = torch.load(tmp_path / f"4/{rank}.pt", weights_only=True)
        for key, value in one.items():
            torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-6, equal_nan=True, msg=key)
    assert one["thresholds"].isfinite().all()
