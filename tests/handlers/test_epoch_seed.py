"""What is read of the training images when a fit completes does not depend on whether it was resumed there."""

import torch
from ignite.engine import Engine, Events

from dino_uad.handlers import EpochSeed


class Loader(list):
    """Three batches that know the epoch whose order they have."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def completed(resumed: bool) -> tuple[int, float]:
    """The loader's epoch, and the next random number, when a fit of four epochs completes."""
    found = []
    loader, engine = Loader([0, 1, 2]), Engine(lambda engine, batch: torch.rand(1))
    engine.data_loader = loader
    EpochSeed(7).attach(engine)

    def resume(engine: Engine) -> None:
        engine.state.epoch, engine.state.iteration = 4, 12

    if resumed:
        engine.add_event_handler(Events.STARTED, resume)
    engine.add_event_handler(Events.COMPLETED, lambda _: found.append((loader.epoch, float(torch.rand(1)))))
    engine.run(loader, max_epochs=4)
    assert len(found) == 1
    return found[0]


def test_a_fit_that_was_killed_after_its_last_epoch_ends_as_one_that_was_not() -> None:
    assert completed(resumed=True) == completed(resumed=False)
    assert completed(resumed=True)[0] == 4
