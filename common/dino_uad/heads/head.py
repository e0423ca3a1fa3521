"""What every method implements: a head that learns normal patch embeddings and scores new ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dino_uad.heads.masking import patch_mean
from dino_uad.heads.neighbourhood import neighbourhood_mean


class DynamicBuffers(nn.Module):
    """A module some of whose buffers have the size of the training data; loading a state dict resizes them."""

    dynamic_buffers: tuple[str, ...] = ()
    """Names of those buffers, which start empty."""

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        for name in self.dynamic_buffers:
            stored, current = state_dict.get(prefix + name), getattr(self, name)
            if stored is not None and stored.shape != current.shape:
                self.register_buffer(name, torch.empty(stored.shape, dtype=stored.dtype, device=current.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Head(DynamicBuffers):
    """Base class of the anomaly detection heads.

    A head lives on the output of a frozen backbone. Fitting is streaming: the engine calls :meth:`fit_batch` for every
    batch of cached embeddings and :meth:`end_epoch` after each pass; whatever is learned is a parameter or buffer, so
    that ``state_dict()`` is the whole model. Buffers whose size depends on the training data (a memory bank) start
    empty and are declared in :attr:`dynamic_buffers`; loading a state dict resizes them.

    Args:
        embed_dim: number of channels ``C`` of the embeddings.
    """

    title: str = ""
    """What pages call the method; its class's name, without ``Head``, when empty."""
    decides: tuple[str, ...] = ()
    """Constructor settings that decide the scores of a fitted head and that its tensors do not show. They are stored in
    the fingerprint; a model file with other values is refused."""
    single_pass: bool = False
    """Whether one pass over the data is the whole fit; further epochs would only repeat it."""
    measures_residuals: bool = False
    """Whether :class:`~dino_uad.handlers.measure_residuals.MeasureResiduals` has something to measure. The head then
    has ``measure_residuals`` and ``end_measuring``, and no scores without them."""
    averages_embeddings: bool = True
    """Whether the head may be given embeddings that are averaged over neighbouring patches. One that predicts a patch
    from its neighbours may not: they would contain it. It averages what it makes of them, over :attr:`neighbourhood`.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.neighbourhood = 1
        """Side in patches of the detector's neighbourhood, which sets it."""

    @property
    def method(self) -> str:
        """What pages call the method."""
        return self.title or type(self).__name__.removesuffix("Head")

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments and what follows from them: public attributes that are no parameter or buffer."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_") and key != "training"}

    def deciding(self) -> dict[str, Any]:
        """Return the values of :attr:`decides` (JSON types), for the fingerprint."""
        return {name: getattr(self, name) for name in self.decides}

    def prepare(self, embeddings: Tensor) -> Tensor:
        """Average embeddings ``[B,C,h,w]`` over :attr:`neighbourhood`, if the head allows it; else return them."""
        return neighbourhood_mean(embeddings, self.neighbourhood) if self.averages_embeddings else embeddings

    @property
    def fitted(self) -> bool:
        """Whether the head has learned anything; scoring before that raises :class:`RuntimeError`."""
        raise NotImplementedError

    def fit_batch(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> dict[str, float]:
        """Learn from one batch of normal images.

        Args:
            embeddings: ``[B,C,h,w]`` patch embeddings; ``B`` may be 0 on a rank that ran out of images.
            cls: ``[B,C]`` class tokens, needed by heads that compare whole images.
            mask: ``[B,1,h,w]`` bool, the patches to learn from; all when None.

        Returns:
            Named numbers for the progress bar and the log.
        """
        raise NotImplementedError

    def end_epoch(self) -> None:
        """Called on every rank after each pass over the training data; all-reduces or finalises what was gathered."""

    @property
    def calibrates(self) -> bool:
        """Whether there is anything to do in the pass of :meth:`calibrate_batch`, which reads all images once more."""
        return type(self).calibrate_batch is not Head.calibrate_batch

    def calibrate_batch(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Second pass, over normal validation images after fitting, for heads that need statistics of their scores."""

    def end_calibration(self) -> None:
        """Called on every rank after the pass of :meth:`calibrate_batch`; all-reduces and stores what was gathered."""

    def score(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Anomaly score of every patch, higher is more anomalous: ``[B,C,h,w]`` to ``[B,1,h,w]`` float32."""
        raise NotImplementedError

    def end_scoring(self) -> None:
        """Called on every rank that has no more images to score, for heads that score together with other ranks."""

    def log_likelihood(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Mean log-likelihood per patch of each image, ``[B]``; model selection maximises it on normal images.

        Heads without a density return minus the mean score, which orders models the same way but has no unit.
        """
        return patch_mean(-self.score(embeddings, cls, mask), mask)
