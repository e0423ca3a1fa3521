"""The learning rate of a fit by gradients: up once and down once, over as many steps as the fit will make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from dino_uad.settings import require_number


class OneCycle:
    """Torch's ``OneCycleLR`` (Smith & Topin 2018) over all steps of the trainer that it is attached to.

    MONAI's ``LrScheduleHandler`` needs a schedule that knows the number of steps before there is a trainer. The rate
    rises to the optimizer's own and falls to nearly nothing, so that the last epoch is the one of least noise. It is
    saved and loaded like an optimizer; one of another number of steps is another schedule. A trainer that runs again,
    or longer than it was to when this was attached, gets a cycle over the steps it makes then.

    Args:
        optimizer: whose learning rate it sets; the rate it was made with is the highest.
        rising: share of the steps until then.
        enabled: False leaves the learning rate as it is, and has no state.
    """

    def __init__(self, optimizer: Optimizer, rising: float = 0.3, enabled: bool = True) -> None:
        require_number("rising", rising, 0, 1, ends="()")
        self.optimizer = optimizer
        self.rising = float(rising)
        self.enabled = bool(enabled)
        self.scheduler: OneCycleLR | None = None

    def attach(self, engine: Engine) -> None:
        """Plan the steps of a trainer that knows how many it will make, and follow them."""
        if not self.enabled:
            return
        self._plan(engine.state.max_epochs * engine.state.epoch_length)
        engine.add_event_handler(Events.STARTED, self._plan_more)  # after a checkpoint is resumed from
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: self.scheduler.step())

    def _plan(self, steps: int) -> None:
        highest = self.optimizer.defaults["lr"]
        self.scheduler = OneCycleLR(self.optimizer, highest, total_steps=steps, pct_start=self.rising)

    def _plan_more(self, engine: Engine) -> None:
        steps = (engine.state.max_epochs - engine.state.epoch) * engine.state.epoch_length
        if steps > self.scheduler.total_steps - self.scheduler.last_epoch:
            self._plan(steps)

    @property
    def defaults(self) -> dict[str, Any]:
        """Settings that must be equal for a fit to resume from a state; torch's optimizers call them so too."""
        return {"rising": self.rising, "steps": self.scheduler.total_steps} if self.scheduler else {}

    def state_dict(self) -> dict[str, Any]:
        """State of torch's scheduler; empty if not enabled."""
        return self.scheduler.state_dict() if self.scheduler else {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Resume from a state of :meth:`state_dict`."""
        if self.scheduler:
            self.scheduler.load_state_dict(dict(state_dict))
