"""A fit that can be killed at any moment: one checkpoint an epoch, the best state kept, resumed by the same command."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.handlers import EarlyStopHandler

from dino_uad import parallel
from dino_uad.describe import describe_part
from dino_uad.digests import digest_code, digest_json
from dino_uad.embeddings import EmbeddingLoader
from dino_uad.files import save_torch
from dino_uad.torch_files import load_parts

logger = logging.getLogger(__name__)

TRAINING = ("amp", "bfloat16", "accumulation_steps", "loss_function", "inferer", "prepare_batch")
"""Attributes of a trainer by which it learns something else from the same batches."""


class Stateful(Protocol):
    """Anything with a state: network, optimizer, scheduler."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


class FitCheckpoint:
    """Writes ``path`` after every epoch, resumes from it, and in the end puts the best state back into the model.

    Best means the highest key metric of ``evaluator``, the validation log-likelihood on normal images. MONAI's
    ``CheckpointSaver`` keeps rotated files; what is needed to go on after SIGKILL with the same bytes (weights,
    optimizer, epoch, and the best state so far) belongs in one file that is replaced atomically.

    Args:
        save_dict: what to save; ``model`` is the detector, others (an optimizer, a schedule) may follow.
        path: the checkpoint file, removed once the fit is complete. Not ``*.pt``: MONAI Label takes every such file
            in the models' folder for a model.
        evaluator: engine whose key metric selects the model; it must have run before this handler.
        early_stop: the handler that may end the fit early, which is told its trainer here; its patience goes on where
            it was.
    """

    def __init__(
        self,
        save_dict: Mapping[str, Stateful],
        path: str,
        evaluator: Engine,
        early_stop: EarlyStopHandler | None = None,
    ) -> None:
        if "model" not in save_dict:
            raise ValueError(f"save_dict has keys {sorted(save_dict)}; 'model' is missing")
        self.save_dict = dict(save_dict)
        self.path = Path(path)
        self.evaluator = evaluator
        self.early_stop = early_stop
        self.best: dict[str, Any] = {"metric": -math.inf, "epoch": 0, "model": None}
        self.resumed_after = 0

    def attach(self, engine: Engine) -> None:
        """Register on the trainer: resume at the start, save after each epoch, restore the best at the end."""
        if self.early_stop is not None:
            self.early_stop.set_trainer(engine)
        engine.add_event_handler(Events.STARTED, self.resume)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.restore_best)

    def resume(self, engine: Engine) -> None:
        """Continue after the last complete epoch of a run with the same settings, if rank 0 has one.

        Raises:
            RuntimeError: it has, and another rank reads none or that of another epoch.
            ValueError: such a checkpoint holds what the network or another part does not take.
        """
        parts = self._stored(engine)
        epochs = parallel.gather_objects(None if parts is None else parts["epoch"])
        if epochs[0] is None:
            return
        if any(epoch != epochs[0] for epoch in epochs):
            found = ", ".join(f"rank {rank}: {'none' if epoch is None else epoch}" for rank, epoch in enumerate(epochs))
            raise RuntimeError(
                f"{self.path} is not the same on every rank (epochs: {found}): ckpt_dir must be one folder that every "
                "rank can read"
            )
        try:
            for name, thing in self._states(engine).items():
                thing.load_state_dict(parts[name])
        except Exception as error:  # some may have been loaded: the fit cannot start from there
            raise ValueError(f"{self.path} cannot be taken up ({error}): delete it and start the fit again") from error
        self.best, epoch = parts["best"], parts["epoch"]
        engine.state.epoch = self.resumed_after = epoch
        if parts["stopped"]:  # early, before it was killed: no epoch is left
            engine.state.max_epochs = epoch
        engine.state.iteration = epoch * engine.state.epoch_length
        logger.info(f"resuming after epoch {epoch} of {engine.state.max_epochs}")

    def _stored(self, engine: Engine) -> dict[str, Any] | None:
        """The checkpoint that this rank finds; None where there is none of this fit."""
        parts = load_parts(self.path, ("run", *self._states(engine), "best", "epoch", "stopped"), "the fit")
        if parts is None:
            return None
        if parts["run"] != self._run_key(engine):
            logger.warning(f"{self.path} belongs to a fit with other settings or data; it will be overwritten")
            return None
        if parts["epoch"] > engine.state.max_epochs:
            logger.warning(
                f"{self.path} holds {parts['epoch']} epochs, more than max_epochs {engine.state.max_epochs}; the fit "
                "starts again and will replace it"
            )
            return None
        return parts

    def save(self, engine: Engine) -> None:
        """Keep the state if its metric is the best so far, and write the checkpoint; a fit of one epoch writes none.

        The last of several epochs is validated here where ``val_interval`` leaves it out: it may be the best.
        """
        validation = self.evaluator.state
        if validation.epoch != engine.state.epoch == engine.state.max_epochs > 1:
            self.evaluator.run(engine.state.epoch)
        if validation.epoch == engine.state.epoch:  # with val_interval > 1 the metric may be of an earlier epoch
            metric = float(validation.metrics[validation.key_metric_name])
            if self.best["model"] is None or metric > self.best["metric"] or math.isnan(self.best["metric"]):
                self._keep(engine, metric)
        if engine.state.max_epochs == 1:
            return
        if parallel.rank() == 0:
            stored = {name: thing.state_dict() for name, thing in self._states(engine).items()}
            stored |= {"best": self.best, "epoch": engine.state.epoch, "run": self._run_key(engine)}
            stored["stopped"] = engine.should_terminate is not False
            save_torch(stored, self.path)
        if parallel.is_distributed():
            dist.barrier()

    def restore_best(self, engine: Engine) -> None:
        """Load the best state into the model; the epoch it came from goes to the log."""
        if self.best["model"] is None:  # one epoch, or never validated: the last state is all there is
            return
        self.save_dict["model"].load_state_dict(self.best["model"])
        logger.info(f"best epoch {self.best['epoch']} of {engine.state.epoch}: {self.best['metric']:.6g}")

    def _states(self, engine: Engine) -> dict[str, Stateful]:
        """Objects whose state is saved: those of ``save_dict``, the loss scaler of AMP and the early stop."""
        # MONAI's handler has no state of its own; ignite's inside it has.
        found = {"scaler": getattr(engine, "scaler", None), "early_stop": getattr(self.early_stop, "_handler", None)}
        return self.save_dict | {name: thing for name, thing in found.items() if thing is not None}

    def _keep(self, engine: Engine, metric: float) -> None:
        self.best = {"metric": metric, "epoch": engine.state.epoch, "model": None}
        if engine.state.max_epochs > 1:  # a bank that one pass filled is not copied
            state = self.save_dict["model"].state_dict()
            self.best["model"] = {key: value.detach().cpu().clone() for key, value in state.items()}

    def _run_key(self, engine: Engine) -> str:
        """Digest of everything that the remaining epochs depend on; of their number only where a schedule does."""
        model, loader = self.save_dict["model"], engine.data_loader
        sizes = {key: list(value.shape) for key, value in model.head.state_dict().items()}
        facts = {
            "code": digest_code(libraries=("torch",)),
            "trainer": {name: describe_part(getattr(engine, name, None)) for name in TRAINING},
            "network": model.facts,
            "head": describe_part(model.head),
            "sizes": {key: size for key, size in sizes.items() if key not in model.head.dynamic_buffers},
            "optimizer": {
                name: [type(thing).__qualname__, getattr(thing, "defaults", None)]
                for name, thing in self.save_dict.items()
            },
            "data": [_images(loader), _images(self.evaluator.data_loader)],
            "loader": [loader.batch_size, loader.shuffle, loader.drop_last, loader.seed],
        }
        return digest_json(facts, default=str)


def _images(loader: EmbeddingLoader) -> list[Any]:
    """How many slices a loader has, and what they are made from."""
    return [len(loader.dataset), loader.dataset.identity]
