"""Every epoch starts from a seed of its own, so that a resumed run repeats what an uninterrupted one would do."""

from __future__ import annotations

from ignite.engine import Engine, Events
from monai.utils import set_determinism


class EpochSeed:
    """Seeds all generators and the order of the training batches from ``(seed, epoch)`` when an epoch starts.

    And from the last epoch when the fit completes: what handlers then read of the training images is the same in a run
    that was killed after its last epoch, and has none to start. So it stands before them.

    Args:
        seed: seed of the run.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Register on the trainer's ``EPOCH_STARTED`` and ``COMPLETED``."""
        engine.add_event_handler(Events.EPOCH_STARTED | Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        set_determinism((self.seed * 1_000_003 + engine.state.epoch) % 2**32)
        engine.data_loader.set_epoch(engine.state.epoch)
