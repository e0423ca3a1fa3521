"""Handlers that do their work in the order of a list: any other is refused when the trainer is made."""

import re

import pytest
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.handlers import StatsHandler, ValidationHandler

from dino_uad.handlers import EpochSeed, FinishFit, FitCheckpoint, MeasureResiduals
from dino_uad.handlers.order import registered
from dino_uad.heads.spatial_ar import SpatialARHead
from helpers import backbone, detector

RIGHT = "seed validate checkpoint residuals finish"


@pytest.fixture(scope="module")
def frozen():
    return backbone()


@pytest.fixture
def attached(frozen):
    def attach(names, covariance="full", checkpoint="fit.ckpt", interval=2):
        """A trainer with these handlers, attached in turn."""
        trainer, evaluator = Engine(lambda *_: None), Evaluator("cpu", [])
        head = SpatialARHead(frozen.embed_dim, hidden=4, dilations=(1,), covariance=covariance)
        network = detector(backbone=frozen, head=head)
        handlers = {
            "seed": EpochSeed(),
            "validate": ValidationHandler(interval, evaluator),
            "checkpoint": FitCheckpoint({"model": network}, "fit.ckpt", evaluator),
            "residuals": MeasureResiduals(network, []),
            "finish": FinishFit(network, [], "model.pt", checkpoint),
            "stats": StatsHandler(name=None),
        }
        for name in names.split():
            handlers[name].attach(trainer)
        return trainer

    return attach


@pytest.mark.parametrize("interval", [1, 2])
def test_the_order_of_the_bundles_is_taken_with_others_in_between(attached, interval):
    trainer = attached("stats " + RIGHT.replace(" ", " stats "), interval=interval)
    expected = [EpochSeed, FitCheckpoint, MeasureResiduals, FinishFit]
    assert [kind for kind in registered(trainer, Events.COMPLETED) if kind in expected] == expected
    kept = [kind for kind in registered(trainer, Events.EPOCH_COMPLETED) if kind is not StatsHandler]
    assert kept == [ValidationHandler, FitCheckpoint]


WRONG = {
    "seed validate residuals finish": "has no FitCheckpoint before FinishFit; expected FitCheckpoint, Measure",
    "seed validate checkpoint finish residuals": "has no MeasureResiduals before FinishFit; expected FitCheckpoint, Me",
    "finish seed validate checkpoint residuals": "has no FitCheckpoint, MeasureResiduals before FinishFit",
    "seed validate residuals checkpoint finish": "has EpochSeed, MeasureResiduals, FitCheckpoint; expected the order E",
    "validate checkpoint residuals seed finish": "has FitCheckpoint, MeasureResiduals, EpochSeed; expected the order E",
    "seed checkpoint validate residuals finish": "has FitCheckpoint, ValidationHandler; expected the order Validat",
}


@pytest.mark.parametrize("interval", [1, 2])
@pytest.mark.parametrize("order", WRONG)
def test_another_order_is_refused(attached, order, interval):
    with pytest.raises(ValueError, match=re.escape(f"train#handlers {WRONG[order]}")):
        attached(order, interval=interval)


def test_what_a_fit_does_not_have_is_not_asked_for(attached):
    attached("finish", covariance="unit", checkpoint=None)
    attached("residuals finish", checkpoint=None)
    attached("seed validate checkpoint finish", covariance="unit")
