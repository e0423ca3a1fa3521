"""What a checkpoint holds, and which epoch is the best."""

import math
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import EarlyStopHandler

from dino_uad.engines import PrepareEmbedding
from dino_uad.handlers import FitCheckpoint, fit_checkpoint
from helpers import detector


class Loader(list):
    batch_size, shuffle, drop_last, seed = 2, False, False, 0


class Slices(list):
    identity = "bytes of files"


class Fit:
    """A trainer whose head counts epochs, and an evaluator that reports the given metrics."""

    def __init__(self, folder, metrics, epochs=None, patience=99, interval=1, **attributes):
        self.epochs = epochs or len(metrics)
        self.network = detector()
        self.loader = Loader([0])
        self.loader.dataset = Slices([0])
        self.trainer, self.evaluator = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
        for name, value in attributes.items():
            setattr(self.trainer, name, value)
        self.evaluator.data_loader = self.trainer.data_loader = self.loader
        self.evaluator.state.key_metric_name = "quality"
        self.early_stop = EarlyStopHandler(patience, lambda engine: engine.state.metrics["quality"])
        self.early_stop.attach(self.evaluator)

        def learn(engine):
            self.network.head.count += 1

        def validate(engine):
            self.validated = [*getattr(self, "validated", ()), engine.state.epoch]
            self.evaluator.state.metrics = {"quality": metrics[engine.state.epoch - 1]}
            self.evaluator.state.epoch = engine.state.epoch
            self.evaluator.fire_event(Events.EPOCH_COMPLETED)

        self.evaluator.run = lambda epoch: validate(self.trainer)  # as MONAI's, whose argument is its number
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, learn)
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED(every=interval), validate)
        self.checkpoint = FitCheckpoint(
            {"model": self.network}, str(folder / "fit.ckpt"), self.evaluator, early_stop=self.early_stop
        )
        self.checkpoint.attach(self.trainer)

    def run(self):
        self.trainer.run(self.loader, max_epochs=self.epochs)
        return self


@pytest.mark.parametrize(
    ("metrics", "best"), [([math.nan, 1.0, 0.5], 2), ([1.0, math.nan, 2.0], 3), ([math.nan] * 3, 3), ([3.0, 2.0], 1)]
)
def test_the_best_epoch(tmp_path, metrics, best):
    fit = Fit(tmp_path, metrics).run()
    assert fit.checkpoint.best["epoch"] == best
    assert float(fit.network.head.count) == best


@pytest.mark.parametrize(
    ("interval", "metrics", "validated", "best"),
    [(2, [9.0, 1.0, 9.0, 2.0, 3.0], [2, 4, 5], 5), (10, [9.0, 9.0, 1.0], [3], 3), (2, [1.0, 2.0], [2], 2)],
)
def test_the_last_epoch_is_validated_too(tmp_path, interval, metrics, validated, best):
    fit = Fit(tmp_path, metrics, interval=interval).run()
    assert fit.validated == validated and fit.checkpoint.best["epoch"] == best
    assert float(fit.network.head.count) == best


def test_fewer_epochs_than_a_checkpoint_holds_are_a_fit_of_their_own(tmp_path, caplog):
    metrics = [1.0, 2.0, 3.0, 4.0]
    Fit(tmp_path, metrics).run()
    fewer, alone = Fit(tmp_path, metrics, epochs=2).run(), Fit(tmp_path / "alone", metrics, epochs=2).run()
    assert "fit.ckpt holds 4 epochs, more than max_epochs 2; the fit starts again" in caplog.text
    assert (fewer.trainer.state.epoch, fewer.checkpoint.best["epoch"]) == (2, 2)
    assert torch.equal(fewer.network.head.count, alone.network.head.count)


def test_patience_and_loss_scale_survive_a_kill(tmp_path):
    scaler = SimpleNamespace(state_dict=lambda: {"scale": 512.0}, load_state_dict=lambda state: None)
    Fit(tmp_path, [3.0, 2.0], patience=3, scaler=scaler).run()
    restored = {}
    scaler.load_state_dict = restored.update
    resumed = Fit(tmp_path, [3.0, 2.0, 1.0, 1.0, 1.0, 1.0], patience=3, scaler=scaler).run()
    assert restored == {"scale": 512.0}
    assert resumed.trainer.state.epoch == 4  # 3 epochs without a better one, the first of them before the kill


def test_a_fit_that_stopped_early_and_was_killed_then_runs_no_other_epoch(tmp_path):
    stopped = Fit(tmp_path, [3.0, 2.0, 2.0, 9.0], patience=2).run()
    assert stopped.trainer.state.epoch == 3
    resumed = Fit(tmp_path, [3.0, 2.0, 2.0, 9.0], patience=2).run()
    assert resumed.trainer.state.epoch == 3 and resumed.checkpoint.best["epoch"] == 1
    assert torch.equal(resumed.network.head.count, stopped.network.head.count)


@pytest.mark.parametrize(("steps", "expected"), [(9, [1, 2, 3]), (8, [1, 2, 1, 2, 3])])
def test_a_schedule_of_other_steps_starts_again(tmp_path, steps, expected):
    epochs = []
    for count, planned in ((2, 9), (3, steps)):
        fit = Fit(tmp_path, [1.0, 2.0, 3.0][:count])
        schedule = SimpleNamespace(defaults={"steps": planned}, state_dict=dict, load_state_dict=lambda state: None)
        fit.checkpoint.save_dict["schedule"] = schedule
        fit.trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: epochs.append(engine.state.epoch))
        fit.run()
    assert epochs == expected


def optimizer_of(kind):
    return lambda fit: fit.checkpoint.save_dict.update(
        optimizer=type(kind, (), {"state_dict": dict, "load_state_dict": lambda self, state: None})()
    )


def of_my_class(part, version):
    """Make a part one of a user's class, as that is in one of two versions of its file."""
    method = {"old": lambda self: 1, "new": lambda self: 2}[version]
    part.__class__ = type("Mine", (type(part),), {"mine": method, "__module__": __name__})


OTHER = {
    "nothing": lambda fit: None,
    "amp": lambda fit: setattr(fit.trainer, "amp", True),
    "bfloat16": lambda fit: setattr(fit.trainer, "bfloat16", True),
    "loss": lambda fit: setattr(fit.trainer, "loss_function", torch.nn.L1Loss()),
    "noise": lambda fit: setattr(fit.trainer, "prepare_batch", PrepareEmbedding(noise_scale=0.5)),
    "seed of the noise": lambda fit: setattr(fit.trainer, "prepare_batch", PrepareEmbedding(seed=1)),
    "batch size": lambda fit: setattr(fit.loader, "batch_size", 3),
    "images": lambda fit: setattr(fit.loader.dataset, "identity", "other bytes"),
    "optimizer": optimizer_of("Lion"),
    "class of the head": lambda fit: of_my_class(fit.network.head, "new"),
    "class of the noise": lambda fit: of_my_class(fit.trainer.prepare_batch, "new"),
}
FIRST = {
    "class of the head": lambda fit: of_my_class(fit.network.head, "old"),
    "class of the noise": lambda fit: of_my_class(fit.trainer.prepare_batch, "old"),
}


@pytest.mark.parametrize("change", OTHER)
def test_a_fit_that_would_learn_something_else_starts_again(tmp_path, change):
    epochs = []
    for count, changed in ((2, FIRST.get(change)), (3, OTHER[change])):
        fit = Fit(tmp_path, [1.0, 2.0, 3.0][:count], amp=False, bfloat16=False, loss_function=torch.nn.MSELoss())
        fit.trainer.prepare_batch = PrepareEmbedding()
        optimizer_of("Adam")(fit)
        if changed:
            changed(fit)
        fit.trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: epochs.append(engine.state.epoch))
        fit.trainer.add_event_handler(Events.ITERATION_STARTED, fit.trainer.prepare_batch.follow)
        fit.run()
    assert epochs == ([1, 2, 3] if change == "nothing" else [1, 2, 1, 2, 3])


def test_a_fit_of_other_code_starts_again(tmp_path, monkeypatch):
    Fit(tmp_path, [3.0, 2.0]).run()
    monkeypatch.setattr(fit_checkpoint, "digest_code", lambda libraries: "another")
    assert Fit(tmp_path, [1.0, 1.0, 2.0]).run().checkpoint.best["epoch"] == 3


@pytest.mark.parametrize("part", ["model", "early_stop", "best", "epoch", "stopped"])
def test_a_checkpoint_that_lacks_a_part_is_not_taken_up(tmp_path, caplog, part):
    Fit(tmp_path, [3.0, 2.0]).run()
    stored = torch.load(tmp_path / "fit.ckpt", weights_only=True)
    stored.pop(part)
    torch.save(stored, tmp_path / "fit.ckpt")
    resumed = Fit(tmp_path, [1.0, 1.0, 2.0]).run()
    assert resumed.checkpoint.best["epoch"] == 3, "it began with the first epoch"
    assert f"damaged or no checkpoint (KeyError('{part}'))" in caplog.text


def test_a_state_that_does_not_fit_is_an_error_that_names_the_file(tmp_path):
    Fit(tmp_path, [3.0, 2.0]).run()
    stored = torch.load(tmp_path / "fit.ckpt", weights_only=True)
    stored["model"]["of something else"] = torch.zeros(1)
    torch.save(stored, tmp_path / "fit.ckpt")
    with pytest.raises(ValueError, match=r"(?s)fit\.ckpt cannot be taken up .*delete it and start"):
        Fit(tmp_path, [3.0, 2.0, 1.0]).run()


def test_one_epoch_keeps_no_second_copy_of_the_model(tmp_path):
    fit = Fit(tmp_path, [1.0]).run()
    assert fit.checkpoint.best["model"] is None and not (tmp_path / "fit.ckpt").exists()
    assert float(fit.network.head.count) == 1


def test_rank_0_decides_whether_a_fit_goes_on(tmp_path, monkeypatch):
    Fit(tmp_path, [3.0, 2.0]).run()
    seen = []
    monkeypatch.setattr(fit_checkpoint.parallel, "gather_objects", lambda mine: seen.append(mine) or [None, mine])
    assert Fit(tmp_path, [1.0, 1.0, 2.0]).run().checkpoint.best["epoch"] == 3 and seen == [2], "it began anew"


@pytest.mark.parametrize(("mine", "said"), [("absent", "none"), ("damaged", "none"), ("whole", "2")])
def test_a_rank_that_finds_another_checkpoint_than_rank_0_is_named(tmp_path, monkeypatch, mine, said):
    Fit(tmp_path, [3.0, 2.0]).run()
    if mine == "absent":
        (tmp_path / "fit.ckpt").unlink()
    elif mine == "damaged":
        (tmp_path / "fit.ckpt").write_bytes(b"half of it")
    monkeypatch.setattr(fit_checkpoint.parallel, "gather_objects", lambda own: [3, own])
    with pytest.raises(RuntimeError, match=rf"fit\.ckpt is not the same .*rank 0: 3, rank 1: {said}\).*one folder"):
        Fit(tmp_path, [3.0, 2.0, 1.0, 1.0]).run()
