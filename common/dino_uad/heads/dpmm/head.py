"""Dirichlet process mixture of patch embeddings: Schulthess & Konukoglu, MICCAI 2025 ([DPMM]).

======================  ===============================================================================
paper                   here
======================  ===============================================================================
embeddings on a sphere  ``normalize=True``
stick-breaking prior    :func:`~dino_uad.heads.dpmm.sticks.log_stick_weights`, truncated at ``n_components``
E step, statistics      :func:`~dino_uad.heads.dpmm.expectation.batch_sums`, all-reduced over the ranks
moving averages, M      :func:`~dino_uad.heads.dpmm.maximisation.update_shares`, ``update_shapes``, step size γ
concentration α         :func:`~dino_uad.heads.dpmm.sticks.update_concentration`
anomaly score           :func:`~dino_uad.heads.dpmm.scores.cosine`, to the means with π_k > t_π
======================  ===============================================================================
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dino_uad import parallel
from dino_uad.exact import full_float32, without_autocast
from dino_uad.heads.dpmm import gaussian, sticks
from dino_uad.heads.dpmm.expectation import Sums, batch_sums, count_rows, log_density
from dino_uad.heads.dpmm.init import COVARIANCES, INITIALISERS, first_covariance
from dino_uad.heads.dpmm.maximisation import SCHEDULES, Moments, update_shapes, update_shares, with_slack
from dino_uad.heads.dpmm.rows import maps_of, rows_of
from dino_uad.heads.dpmm.scores import SCORES, wide_log_joint
from dino_uad.heads.head import Head
from dino_uad.heads.masking import patch_mean
from dino_uad.settings import require_choice, require_count, require_memory, require_number
from dino_uad.transfer import packed_on

BYTES_OF_A_FIT = 32
"""For each number of all covariances: running moments in float32, a batch's sums in float64, the densities' factors."""
_SLACK = torch.finfo(torch.float32).eps


class DPMMHead(Head):
    """Streaming EM for a truncated Dirichlet process Gaussian mixture over patch embeddings.

    Args:
        embed_dim: channels ``C`` of the embeddings.
        n_components: truncation K.
        covariance: "diag", "full" or "spherical".
        schedule: step size of update t = 0, 1, …: "ema" takes ``step_size`` itself, "exp" ``(t+1) ** -step_size``.
        step_size: γ; with "ema", 1 makes every batch replace the statistics (classical EM when the batch is the
            whole training set).
        concentration: initial α.
        learn_concentration: whether α is re-estimated after every step.
        weight_threshold: t_π; components of smaller normalised weight take no part in scores and likelihoods.
        normalize: whether embeddings are L2-normalised first.
        score_type: "cosine" (1 − largest similarity), "likelihood" (minus the log density), "euclidean" or
            "mahalanobis" (smallest distance).
        init: how the means are drawn from the first batch: "kmeans++", "random" rows or, as published, a permutation
            of its "first_rows".
        reg_covar: added to every variance; the paper's full covariances use 1e-3.
        seed: of the initialisation.
        reference: reproduce the arithmetic of the published code: 1.2e-7 added to the denominators, the sizes of
            smaller batches entering v and α, components whose weight underflows left out, and likelihoods with
            weights that sum to less than 1. For comparison with published numbers only.
    """

    decides = ("covariance", "normalize", "reference", "score_type", "weight_threshold")

    def __init__(
        self,
        embed_dim: int,
        n_components: int = 500,
        covariance: str = "diag",
        schedule: str = "ema",
        step_size: float = 0.2,
        concentration: float = 2.0,
        learn_concentration: bool = True,
        weight_threshold: float = 1e-6,
        normalize: bool = True,
        score_type: str = "cosine",
        init: str = "kmeans++",
        reg_covar: float = 1e-6,
        seed: int = 0,
        reference: bool = False,
    ) -> None:
        super().__init__(embed_dim)
        require_choice("covariance", covariance, COVARIANCES)
        require_choice("schedule", schedule, SCHEDULES)
        require_choice("score_type", score_type, SCORES)
        require_choice("init", init, INITIALISERS)
        require_count("n_components", n_components, 2)
        require_number("step_size", step_size, 0, 1, ends="(]")
        require_number("concentration", concentration, 0, ends="(]")
        require_number("reg_covar", reg_covar, 0, ends="(]")
        require_number("weight_threshold", weight_threshold, 0, 1, ends="[)")
        self.covariance, self.schedule, self.step_size = covariance, schedule, step_size
        self.initial_concentration, self.learn_concentration = concentration, learn_concentration
        self.weight_threshold, self.normalize, self.score_type = weight_threshold, normalize, score_type
        self.init, self.reg_covar, self.seed, self.reference = init, reg_covar, seed, reference
        shape = (n_components, embed_dim, embed_dim) if covariance == "full" else (n_components, embed_dim)
        require_memory("n_components", n_components, BYTES_OF_A_FIT * math.prod(shape))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("rows_per_batch", torch.zeros((), dtype=torch.int64))
        self.register_buffer("concentration", torch.tensor(float(concentration)))
        self.register_buffer("log_weights", torch.zeros(n_components))
        self.register_buffer("resp_mean", torch.zeros(n_components))
        self.register_buffer("running_means", torch.zeros(n_components, embed_dim))
        self.register_buffer("running_covariances", torch.zeros(shape))
        self.register_buffer("active", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.register_load_state_dict_post_hook(DPMMHead._refresh_active)

    @property
    def fitted(self) -> bool:
        return self.n_active > 0

    @property
    def n_active(self) -> int:
        """Number of components of weight above ``weight_threshold``."""
        return self.active.numel()

    @property
    def components(self) -> gaussian.Components:
        """Log weights, means and covariances the E step and the scores use (all K, not normalised)."""
        moments = Moments(self.resp_mean, self.running_means, self.running_covariances)
        if self.reference and int(self.step) > 0:
            moments = with_slack(moments, _SLACK, self.reg_covar, self.covariance == "spherical")
        return gaussian.Components(self.log_weights, moments.means, moments.covariances)

    def weights(self) -> Tensor:
        """Mixing weights ``[K]``, normalised to sum to 1."""
        return self.log_weights.softmax(0)

    def fit_batch(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> dict[str, float]:
        """One EM step on the rows of all ranks; see :meth:`Head.fit_batch`. A batch without rows changes nothing.

        Raises:
            ValueError: if an embedding is NaN, infinite or too large for float32 arithmetic.
        """
        with torch.no_grad(), full_float32(), without_autocast(embeddings.device):
            rows, images = rows_of(embeddings, self.embed_dim), None
            if mask is not None:
                rows = rows[mask.flatten().to(rows.device)]
            if not rows.is_cuda:  # where counting them would wait for the device, and nobody asks
                patches = embeddings.shape[-2:].numel()
                images = [patches] * len(embeddings) if mask is None else mask.flatten(1).sum(1).tolist()
            n_rows = count_rows(rows)
            if n_rows == 0:
                return {}
            if int(self.rows_per_batch) == 0:
                self._initialise(parallel.gather_rows(self._prepare(rows)))
            return self._em_step(rows, n_rows, images)

    def end_epoch(self) -> None:
        """Refuse an epoch after which no component takes part in scores.

        Raises:
            RuntimeError: no batch had a patch, nor had one before.
            ValueError: ``weight_threshold`` is above all weights.
        """
        if self.fitted:
            return
        if int(self.rows_per_batch) == 0:
            raise RuntimeError("DPMM was given no patch: check the training images and their foreground")
        largest = self.weights().amax().item()
        raise ValueError(
            f"weight_threshold is {self.weight_threshold}; expected less than the largest weight {largest:.2g}"
        )

    def _em_step(self, rows: Tensor, n_rows: int, images: list[int] | None) -> dict[str, float]:
        components = self.components
        if self.reference:  # the published code exponentiates them, which loses the late sticks
            log_weights = components.log_weights.where(components.log_weights.exp() > 0, -torch.inf)
        else:
            log_weights = components.log_weights.log_softmax(0)
        components = components._replace(log_weights=log_weights)
        sums, center = batch_sums(rows, components, self._prepare, images, wide=self.reference)
        sums = Sums(*parallel.all_reduce_sum(*(tensor.contiguous() for tensor in sums)))
        # What is one number a component is computed on the host, where it takes no time: dozens of small operations.
        vectors = sums.counts, sums.log_likelihood, self.resp_mean.double(), self.concentration.double()
        counts, log_likelihood, resp, concentration = packed_on(vectors, "cpu")
        step_size = SCHEDULES[self.schedule](self.step_size, int(self.step))
        resp, gain = update_shares(resp, counts, n_rows, step_size)
        resp = resp.to(self.resp_mean.dtype).double()
        log_weights, concentration = self._weights(resp, concentration, n_rows)
        self.active = self._above_threshold(log_weights.to(self.log_weights.dtype)).to(rows.device)
        report = {
            "log_likelihood": log_likelihood.item() / n_rows,
            "active_components": float(self.n_active),
            "concentration": concentration.to(self.concentration.dtype).item(),
        }
        resp, gain, log_weights, concentration = packed_on((resp, gain, log_weights, concentration), rows.device)
        moments = Moments(self.resp_mean, self.running_means, self.running_covariances)
        means, covariances = update_shapes(moments, sums, center, gain, self.reg_covar, self.covariance == "spherical")
        self.resp_mean.copy_(resp)
        self.running_means.copy_(means)
        self.running_covariances.copy_(covariances)
        self.log_weights.copy_(log_weights)
        self.concentration.copy_(concentration)
        self.step += 1
        return report

    def _weights(self, resp: Tensor, concentration: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
        """Log mixing weights ``[K]`` and the next α, from the running mean responsibilities and this one."""
        n_rows = n_rows if self.reference else int(self.rows_per_batch)
        log_weights = sticks.log_stick_weights(resp, concentration, n_rows, _SLACK if self.reference else 0.0)
        if self.learn_concentration:
            concentration = sticks.update_concentration(concentration, resp, n_rows)
        return log_weights, concentration

    def _initialise(self, rows: Tensor) -> None:
        """Means from the first batch, its variance for every component, sticks from their prior."""
        generator = torch.Generator().manual_seed(self.seed)
        self.running_means.copy_(INITIALISERS[self.init](rows, len(self.log_weights), generator))
        self.running_covariances.copy_(first_covariance(rows, self.covariance, self.reg_covar))
        self.log_weights.copy_(sticks.sample_log_weights(len(self.log_weights), self.initial_concentration, generator))
        self.rows_per_batch.fill_(len(rows))
        for tensor in (self.running_means, self.running_covariances, self.log_weights):
            parallel.broadcast(tensor)

    def score(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Anomaly score of every patch by ``score_type``: ``[B,C,h,w]`` to ``[B,1,h,w]`` float32."""
        rows = rows_of(embeddings, self.embed_dim)
        # The cosine score brings rows to length 1 itself.
        rows = rows.to(self.running_means.dtype) if self.score_type == "cosine" else self._prepare(rows)
        scores = SCORES[self.score_type](rows, self._active_components())
        return maps_of(scores.to(self.running_means.dtype), embeddings)

    def log_likelihood(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Mean log density of each image's patches under the active components, ``[B]``; 0 without patches."""
        rows = self._prepare(rows_of(embeddings, self.embed_dim))
        density = log_density(rows, self._active_components(), wide=self.reference)
        return patch_mean(maps_of(density.to(self.running_means.dtype), embeddings), mask)

    def assign(self, embeddings: Tensor) -> Tensor:
        """Index in 0..K−1 of each patch's most responsible component: ``[B,C,h,w]`` to ``[B,1,h,w]`` int64."""
        rows = self._prepare(rows_of(embeddings, self.embed_dim))
        return maps_of(self.active[wide_log_joint(rows, self._active_components()).argmax(1)], embeddings)

    def _active_components(self) -> gaussian.Components:
        if not self.fitted:
            raise RuntimeError("the DPMM head is not fitted: run train first or load models/model.pt")
        components = self.components
        if not self.reference:
            components = components._replace(log_weights=self.log_weights.log_softmax(0))
        return components.select(self.active)

    def _prepare(self, rows: Tensor) -> Tensor:
        """Rows as the mixture has them: in the precision of the model, of length 1 if ``normalize``."""
        rows = rows.to(self.running_means.dtype)
        return F.normalize(rows, dim=1) if self.normalize else rows

    def _refresh_active(self, *_: Any) -> None:
        self.active = self._above_threshold(self.log_weights)[: None if self.step > 0 else 0]

    def _above_threshold(self, log_weights: Tensor) -> Tensor:
        """Indices ``[n]`` of the components with weight > ``weight_threshold``."""
        unscaled = self.reference and self.score_type == "likelihood"
        weights = log_weights.exp() if unscaled else log_weights.softmax(0)
        return torch.nonzero(weights > self.weight_threshold).squeeze(1)
