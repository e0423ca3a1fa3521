"""What a fit measures after its steps keeps its digits where somebody runs it under autocast."""

import pytest
import torch
from ignite.engine import Engine

from dino_uad.engines import EmbeddingEvaluator
from dino_uad.handlers import MeasureResiduals
from dino_uad.handlers.calibration import calibrate
from dino_uad.heads.anomaly_dino import AnomalyDinoHead
from dino_uad.heads.dino_ad import DinoADHead
from dino_uad.heads.dpmm import DPMMHead
from dino_uad.heads.mean_distance import MeanDistanceHead
from dino_uad.heads.spatial_ar import SpatialARHead
from helpers import SIZE, backbone, detector

HEADS = {
    "mean_distance": MeanDistanceHead,
    "dpmm": lambda channels: DPMMHead(channels, 4),
    "spatial_ar": lambda channels: SpatialARHead(channels, hidden=8, dilations=(1,), covariance="full"),
    "dino_ad": DinoADHead,
    "anomaly_dino": AnomalyDinoHead,
}
CPU = torch.device("cpu")


@pytest.fixture(params=HEADS)
def fitted(request):
    torch.manual_seed(0)
    frozen = backbone()
    network = detector(backbone=frozen, head=HEADS[request.param](frozen.embed_dim))
    embeddings, cls = network.embed(torch.rand(4, 1, *SIZE))
    batch = {"embedding": embeddings, "cls": cls}
    if request.param == "spatial_ar":
        network.head.batches_seen += 1
        measure_residuals(network, batch)
    else:
        network.head.fit_batch(embeddings, cls)
        network.head.end_epoch()
    return network, batch


def measure_residuals(network, batch):
    trainer = Engine(lambda engine, batch: None)
    trainer.state.device = CPU
    if isinstance(network.head, SpatialARHead):
        MeasureResiduals(network, [batch])(trainer, True)
    return {name: value.clone() for name, value in network.head.state_dict().items()}


def calibrated(network, batch):
    calibrate(network, [batch], CPU)
    return {name: value.clone() for name, value in network.state_dict().items()}


def likelihood(network, batch):
    evaluator = EmbeddingEvaluator(device=CPU, val_data_loader=[batch], network=network)
    return evaluator._iteration(evaluator, batch)["log_likelihood"]


@pytest.mark.parametrize("measure", [measure_residuals, calibrated, likelihood])
def test_the_same_with_and_without(fitted, measure):
    network, batch = fitted
    expected = measure(network, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = measure(network, batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
