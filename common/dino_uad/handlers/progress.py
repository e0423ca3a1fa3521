"""One progress bar for the whole fit, with the time that is left."""

from __future__ import annotations

from ignite.engine import Engine, Events
from torch import Tensor
from tqdm import tqdm

from dino_uad import parallel


class FitProgress:
    """Shows epochs, the numbers of the last iteration and the time left; ignite's bar covers one epoch at a time."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Register on the trainer, after the handler that resumes, so that the bar starts where the fit does."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.advance)
        engine.add_event_handler(Events.COMPLETED, self.close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)

    def start(self, engine: Engine) -> None:
        """Open the bar over the iterations of all epochs."""
        self.bar = tqdm(
            total=engine.state.max_epochs * engine.state.epoch_length,
            initial=engine.state.epoch * engine.state.epoch_length,
            desc="fit",
            unit="batch",
            disable=parallel.rank() > 0,
        )

    def advance(self, engine: Engine) -> None:
        """Move on by one batch."""
        numbers = {
            name: f"{float(value):.4g}"
            for name, value in engine.state.output[0].items()
            if isinstance(value, int | float) or (isinstance(value, Tensor) and value.ndim == 0)
        }
        self.bar.set_postfix({"epoch": f"{engine.state.epoch}/{engine.state.max_epochs}", **numbers}, refresh=False)
        self.bar.update()

    def close(self, engine: Engine) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()

    def fail(self, engine: Engine, error: Exception) -> None:
        """Close the bar and raise the error again: ignite takes an error that has a handler for dealt with."""
        self.close(engine)
        raise error
