"""The order of a trainer's handlers: ignite calls those of one event as they were registered, so it has a meaning."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from ignite.engine import Engine, Events


def registered(engine: Engine, event: Events) -> list[type]:
    """Classes of an event's handlers, as they will be called; of a method, the class of the object that it is of."""
    # ignite's has_event_handler wants the very object. What is not called every time is wrapped.
    handlers = [inspect.unwrap(handler) for handler, *_ in engine._event_handlers[event]]
    return [type(getattr(handler, "__self__", handler)) for handler in handlers]


def require_order(engine: Engine, event: Events, order: Sequence[type]) -> None:
    """Refuse handlers of these classes that stand in another order; absent ones are passed over.

    Raises:
        ValueError: the message names the handlers as they stand and as they have to.
    """
    found = [kind for kind in registered(engine, event) if kind in order]
    expected = sorted(found, key=order.index)
    if found != expected:
        raise ValueError(f"train#handlers has {names(found)}; expected the order {names(expected)}, as in train.json")


def names(kinds: Sequence[type]) -> str:
    """Classes as a config's reader knows them."""
    return ", ".join(kind.__name__ for kind in kinds)
