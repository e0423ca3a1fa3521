"""Residuals are measured on a part of the training images to choose an epoch, and on more of them for the model."""

from unittest.mock import Mock

import pytest
import torch
from ignite.engine import Engine, Events
from tests.helpers import detector

from dino_uad.handlers import FinishFit, MeasureResiduals
from dino_uad.handlers.measure_residuals import CHOOSING, SCORING
from dino_uad.heads.mean_distance import MeanDistanceHead
from dino_uad.heads.spatial_ar import SpatialARHead

CHANNELS, SIDE = 384, 4


def test_few_batches_before_a_validation_and_more_at_the_end():
    head = SpatialARHead(CHANNELS, hidden=4, dilations=(1,), covariance="full")
    network = detector(head=head, neighbourhood=3)
    head.train()(torch.randn(1, CHANNELS, SIDE, SIDE))
    generator = torch.Generator().manual_seed(0)
    batches = [
        {"embedding": torch.randn(1, CHANNELS, SIDE, SIDE, generator=generator), "cls": torch.zeros(1, CHANNELS)}
        for _ in range(SCORING + 3)
    ]
    rows = []

    def look(engine: Engine) -> None:
        rows.append((float(head.density.rows), float(head.scored.rows)))

    trainer = Engine(lambda engine, batch: None)
    trainer.state.device = torch.device("cpu")
    MeasureResiduals(network, batches, interval=2).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, look)
    trainer.add_event_handler(Events.COMPLETED, look)
    trainer.run([0, 1], max_epochs=2)
    patches = SIDE * SIDE
    assert rows == [(0, 0), (CHOOSING * patches, 0), (SCORING * patches, SCORING * patches)]
    assert head.training


@pytest.mark.parametrize("head", [MeanDistanceHead, lambda channels: SpatialARHead(channels, hidden=4, dilations=(1,))])
def test_a_head_without_a_covariance_is_left_alone_and_asks_for_nothing(head):
    network, loader, trainer = detector(head=head(CHANNELS)), Mock(), Engine(lambda engine, batch: None)
    FinishFit(network, [], "model.pt").attach(trainer)
    MeasureResiduals(network, loader)(trainer, True)
    assert not network.head.measures_residuals and not loader.mock_calls
