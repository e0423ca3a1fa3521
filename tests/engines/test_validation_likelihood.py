"""The number that chooses an epoch is a mean over images that have something to be likely."""

import pytest
import torch

from dino_uad.engines import EmbeddingEvaluator
from dino_uad.heads.anomaly_dino import AnomalyDinoHead
from dino_uad.heads.dino_ad import DinoADHead
from dino_uad.heads.dpmm import DPMMHead
from dino_uad.heads.mean_distance import MeanDistanceHead
from dino_uad.heads.spatial_ar import SpatialARHead
from dino_uad.metrics import MeanLogLikelihood
from helpers import SIZE, detector

HEADS = {
    "mean_distance": MeanDistanceHead,
    "dpmm": lambda channels: DPMMHead(channels, 4),
    "spatial_ar": lambda channels: SpatialARHead(channels, hidden=8, dilations=(1,)),
    "dino_ad": DinoADHead,
    "anomaly_dino": AnomalyDinoHead,
}


@pytest.mark.parametrize("name", HEADS)
def test_images_without_foreground_do_not_count(name):
    torch.manual_seed(0)
    network = detector(head=HEADS[name](384), foreground="auto")
    embeddings, cls = network.embed(torch.rand(4, 1, *SIZE))
    if name == "spatial_ar":
        network.head.batches_seen += 1
    else:
        network.head.fit_batch(embeddings, cls)
        network.head.end_epoch()
    mask = torch.rand(4, 1, *embeddings.shape[2:]) > 0.3
    mask[2:] = False

    def mean(*rows):
        batch = {"embedding": embeddings[rows,], "cls": cls[rows,], "foreground": mask[rows,]}
        metric = MeanLogLikelihood()
        metric.attach(
            evaluator := EmbeddingEvaluator(device=torch.device("cpu"), val_data_loader=[batch], network=network), "x"
        )
        evaluator.run()
        return evaluator.state.metrics["x"]

    each = [mean(row) for row in range(2)]
    assert mean(0, 1, 2, 3) == pytest.approx(sum(each) / 2, rel=1e-5)
    assert torch.tensor(mean(2, 3)).isnan()
