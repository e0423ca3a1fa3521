"""The learning rate over a fit, against the formula of the cycle, and across a kill."""

import math

import pytest
import torch
from ignite.engine import Engine

from dino_uad.handlers import OneCycle

HIGHEST, STEPS, RISING = 0.01, 40, 0.3


def cycle(step):
    """Smith & Topin as torch has it: half a cosine from 1/25 of the highest rate up to it, half a one down to 4e-6."""
    top, low, end = RISING * STEPS - 1, HIGHEST / 25, HIGHEST / 25e4
    start, stop, share = (low, HIGHEST, step / top) if step <= top else (HIGHEST, end, (step - top) / (STEPS - 1 - top))
    return stop + (start - stop) / 2 * (1 + math.cos(math.pi * share))


class Fit:
    def __init__(self, epochs=8, per_epoch=5, rising=RISING):
        self.optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=HIGHEST)
        self.schedule, self.rates = OneCycle(self.optimizer, rising), []
        self.engine = Engine(self.step)
        self.engine.state.max_epochs, self.engine.state.epoch_length = epochs, per_epoch
        self.schedule.attach(self.engine)

    def step(self, engine, batch):
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()

    def run(self, epochs=8):
        self.engine.state.max_epochs = None
        self.engine.run(range(5), max_epochs=epochs)
        return self.rates


def test_the_rate_of_every_step():
    assert Fit().run() == pytest.approx([cycle(step) for step in range(STEPS)])


def test_a_resumed_cycle_goes_on_where_it_was(tmp_path):
    first, second = Fit(), Fit()
    before = first.run(3)
    states = {"optimizer": first.optimizer.state_dict(), "schedule": first.schedule.state_dict()}
    torch.save(states, tmp_path / "states")
    for name, state in torch.load(tmp_path / "states", weights_only=True).items():
        getattr(second, name).load_state_dict(state)
    assert before + second.run(5) == Fit().run()


def test_a_trainer_that_runs_again_or_longer_has_a_cycle_of_its_own():
    fit = Fit(epochs=2)
    for _ in range(2):
        fit.rates.clear()
        assert fit.run(8) == pytest.approx([cycle(step) for step in range(STEPS)])


def test_another_number_of_steps_is_another_schedule():
    assert Fit().schedule.defaults == Fit(4, 10).schedule.defaults != Fit(9).schedule.defaults
    assert Fit().schedule.defaults != Fit(rising=0.2).schedule.defaults


@pytest.mark.parametrize("rising", [0, 1, 1.5])
def test_a_share_that_is_none(rising):
    with pytest.raises(ValueError, match=f"rising is {rising}; expected a number in .0, 1."):
        Fit(rising=rising)


def test_one_that_is_off_leaves_the_rate_and_has_no_state():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    schedule = OneCycle(optimizer, enabled=False)
    engine = Engine(lambda engine, batch: None)
    schedule.attach(engine)
    engine.run([0, 1], max_epochs=2)
    assert optimizer.param_groups[0]["lr"] == 0.3 and schedule.defaults == schedule.state_dict() == {}
    schedule.load_state_dict({})
