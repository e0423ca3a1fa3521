"""Spatial autoregressive model of the embedding grid (Erdil et al., arXiv 2603.02974), without its blind corner.

A causal CNN predicts every patch embedding from the ones before it in raster order; an anomaly is what the normal
anatomy around it did not announce. The residual has a Gaussian density, by the published code of unit variance, here
with the full covariance of normal residuals if asked for (:mod:`dino_uad.heads.spatial_ar.residuals`); by the chain
rule the sum over the grid is a proper log-likelihood.

Differences from the published code, all by default:

* masked kernel taps do not exist, see :mod:`dino_uad.heads.spatial_ar.causal_conv`;
* its "bidirectional" network masks the centre of the first layer only, so that from the second layer on every output
  sees its own target. Here ``both`` runs one causal network each way, and ``bidirectional`` joins two causal stacks,
  one of the strict past and one of the strict future, before a pointwise read-out, as blind-spot denoisers do (Laine
  et al., NeurIPS 2019, sec. 3);
* zero padding leaves the first tokens without context, a bright corner in every map: scores are calibrated by position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dino_uad.heads.gradient import GradientHead
from dino_uad.heads.masking import patch_mean
from dino_uad.heads.neighbourhood import box_mean
from dino_uad.heads.spatial_ar.causal_conv import TapCNN, past_taps
from dino_uad.heads.spatial_ar.position_errors import PositionErrors, calibrated
from dino_uad.heads.spatial_ar.residuals import ResidualGaussian
from dino_uad.settings import require, require_choice, require_count, require_memory, require_number
from dino_uad.tracing import is_traced

Direction = Literal["forward", "backward", "both", "bidirectional"]
BYTES_OF_A_WEIGHT = 16  # itself, its gradient and the optimizer's two moments
REVERSED = {"forward": (False,), "backward": (True,), "both": (False, True), "bidirectional": (False, True)}


class SpatialARHead(GradientHead):
    """Predicts each patch embedding from its causal neighbourhood; the score is the squared norm of the error.

    Args:
        embed_dim: number of channels ``C`` of the embeddings.
        hidden: channels of the hidden layers.
        kernel_size: side of the square kernels, odd.
        dilations: of every layer but the output layer, which repeats the last: (1, 1, 1, 1) is the paper's "standard"
            and (4, 4, 4, 4) its "dilated" model, which never sees a direct neighbour; (1, 2, 4, 8) has a reach of both.
        direction: ``forward`` or ``backward`` (raster order, or its reverse), ``both`` (two independent networks) or
            ``bidirectional`` (one network which sees everything but the token itself).
        combine: how ``both`` joins its two error maps, ``mean`` or ``min``.
        covariance: ``unit`` scores the mean squared error over channels, as published; ``full`` the squared Mahalanobis
            norm of the residual, over the number of channels, under the covariance of the training residuals. Before
            the norm, the residuals are averaged over the detector's neighbourhood: of the *embeddings* an average would
            tell the network what it is to predict.
        own_share: weight w of the patch's own residual in that average: ``w * own + (1 - w) * mean of the
            neighbourhood``. 0 hides anomalies of single patches, as in ultrasound; 1 those that many patches share, as
            in most tumours.
        position_calibration: whether ``unit`` scores are scaled down where the mean error on normal validation images
            is above that of the whole grid.
        standardize: whether the network sees and predicts channels of zero mean and unit variance, as measured on the
            training embeddings before the first step; the published code leaves them as they are.
    """

    title = "Spatial AR"
    dynamic_buffers = ("position_error",)
    decides = ("combine", "covariance", "own_share", "position_calibration")
    averages_embeddings = False

    def __init__(
        self,
        embed_dim: int,
        hidden: int = 256,
        kernel_size: int = 3,
        dilations: Sequence[int] = (4, 4, 4, 4),
        direction: Direction = "forward",
        combine: Literal["mean", "min"] = "mean",
        covariance: Literal["unit", "full"] = "unit",
        own_share: float = 1 / 3,
        position_calibration: bool = True,
        standardize: bool = False,
    ) -> None:
        super().__init__(embed_dim, standardize)
        require_choice("direction", direction, REVERSED)
        require_choice("combine", combine, ("mean", "min"))
        require_choice("covariance", covariance, ("unit", "full"))
        require_number("own_share", own_share, 0, 1)
        require_count("hidden", hidden)
        require("dilations", dilations, isinstance(dilations, Sequence) and len(dilations) > 0, "one for each layer")
        for dilation in dilations:
            require_count("dilations", dilation)
        require_memory("hidden", hidden, BYTES_OF_A_WEIGHT * hidden * (2 * embed_dim + hidden))
        self.hidden = hidden
        self.dilations = tuple(dilations)
        self.direction = direction
        self.combine = combine
        self.covariance = covariance
        self.own_share = float(own_share)
        self.position_calibration = position_calibration and covariance == "unit"
        joint = direction == "bidirectional"
        channels = [embed_dim, *[hidden] * len(dilations), hidden if joint else embed_dim]
        first, others = past_taps(kernel_size), past_taps(kernel_size, centre=True)
        self.passes = nn.ModuleList(
            TapCNN(channels, dilations, first, others, reverse) for reverse in REVERSED[direction]
        )
        self.readout = nn.Linear(hidden, embed_dim) if joint else None
        outputs = 2 if direction == "both" else 1
        full = covariance == "full"
        # Of training images: of single patches, which chooses the epoch, and of what is scored. Not of validation
        # images: thresholds that are calibrated on them would be too low for others.
        self.density = ResidualGaussian(embed_dim, outputs) if full else None
        self.scored = ResidualGaussian(embed_dim, outputs) if full else None
        self.register_buffer("position_error", torch.empty(1, 0, 0))
        # Weights of other dilations or the other direction have the same shapes and would load without complaint.
        self.register_buffer("structure", torch.tensor([list(REVERSED).index(direction), kernel_size, *dilations]))
        self._errors = PositionErrors()

    def predict(self, embeddings: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Predictions of every embedding, ``[B,C,h,w]`` to the same shape; a pair, forward first, for ``both``."""
        tokens = embeddings.float().permute(0, 2, 3, 1)
        outputs = [network(tokens) for network in self.passes]
        if self.readout is not None:
            outputs = [self.readout((outputs[0] + outputs[1]).relu())]
        predictions = tuple(output.permute(0, 3, 1, 2) for output in outputs)
        return predictions if len(predictions) > 1 else predictions[0]

    def residuals(self, embeddings: Tensor) -> Tensor:
        """Prediction minus embedding, as :meth:`standardized`, ``D`` ways: ``[B,C,h,w]`` to ``[B,D,C,h,w]``."""
        if not is_traced() and not self.fitted:
            raise RuntimeError(
                f"{type(self).__name__} is not fitted (it has seen no training batch): run train first or load "
                "models/model.pt"
            )
        embeddings = self.standardized(embeddings)
        predictions = self(embeddings)
        predictions = predictions if isinstance(predictions, tuple) else (predictions,)
        return torch.stack([p - embeddings for p in predictions], dim=1)

    @property
    def measures_residuals(self) -> bool:
        """Whether scores and likelihood are under a covariance of the training residuals."""
        return self.density is not None

    @torch.no_grad()
    def measure_residuals(self, embeddings: Tensor, mask: Tensor | None = None, scored: bool = True) -> None:
        """Add training images ``[B,C,h,w]`` to the covariances; only with ``full`` covariance.

        Args:
            embeddings: of the images.
            mask: ``[B,1,h,w]`` bool, the patches that count; all when None.
            scored: whether to update the covariance that scores use, too; the likelihood needs only the other.
        """
        residuals = self.residuals(embeddings)
        self.density.measure(residuals, mask)
        if scored:
            self.scored.measure(self._averaged(residuals), mask)

    def end_measuring(self, scored: bool = True) -> None:
        """Turn the statistics of all ranks into the covariances; ``scored`` as for :meth:`measure_residuals`."""
        self.density.finish()
        if scored:
            self.scored.finish()

    def squared_errors(self, embeddings: Tensor) -> Tensor:
        """Squared norm of the residuals, one map a direction: ``[B,C,h,w]`` to ``[B,D,h,w]``."""
        residuals = self._averaged(self.residuals(embeddings))
        return residuals.square().sum(dim=2) if self.scored is None else self.scored.squared_norm(residuals)

    def _averaged(self, residuals: Tensor) -> Tensor:
        """Blend residuals ``[B,D,C,h,w]`` with the mean of their neighbourhood, as ``own_share`` says."""
        flat = residuals.flatten(0, 1)
        return torch.lerp(box_mean(flat, self.neighbourhood), flat, self.own_share).unflatten(0, residuals.shape[:2])

    def score(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Squared norm of every patch's residual over the number of channels, ``[B,C,h,w]`` to ``[B,1,h,w]`` float32.

        With ``unit`` covariance, after :meth:`end_calibration`, scores are calibrated by position.
        """
        if self.scored is not None and not is_traced() and not self.scored.fitted:
            raise RuntimeError("SpatialARHead has no covariance yet: see handlers.MeasureResiduals")
        error = self._mean_squared_error(embeddings)
        return calibrated(error, self.position_error) if self.position_error.numel() else error

    def log_likelihood(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Log-density of a Gaussian around the prediction, mean per patch of each image, ``[B]`` in nats.

        Its covariance is that of the training residuals for ``full``; else its variance is 1, or each channel's own for
        a head that standardises.

        ``both`` averages its two factorisations; ``bidirectional`` gives a pseudo-likelihood (Besag, 1975), as each
        token is conditioned on all others.
        """
        residuals = self.residuals(embeddings)
        if self.density is None:
            density = -0.5 * (residuals.square().sum(dim=2) + self.embed_dim * math.log(2 * math.pi))
        elif self.density.fitted:
            density = self.density.log_density(residuals)
        else:
            raise RuntimeError("the covariance of the residuals is not measured yet: see handlers.MeasureResiduals")
        density = density.mean(dim=1, keepdim=True)
        return patch_mean(density if self.scale is None else density - self.scale.log_volume(), mask)

    @property
    def calibrates(self) -> bool:
        """Whether scores are calibrated by position."""
        return self.position_calibration

    @torch.no_grad()
    def calibrate_batch(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Add the errors of normal validation images ``[B,C,h,w]`` to the statistics by position."""
        if self.position_calibration:
            self._errors.add(self._mean_squared_error(embeddings), mask)

    def end_calibration(self) -> None:
        """Turn the statistics of all ranks into the mean error by position."""
        if self.position_calibration:
            self.position_error = self._errors.take_mean()

    def _mean_squared_error(self, embeddings: Tensor) -> Tensor:
        """``[B,C,h,w]`` to ``[B,1,h,w]``: mean over channels, directions combined, not calibrated."""
        errors = self.squared_errors(embeddings) / self.embed_dim
        return errors.amin(dim=1, keepdim=True) if self.combine == "min" else errors.mean(dim=1, keepdim=True)

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ) -> None:
        stored = state_dict.get(prefix + "structure")
        if stored is not None and stored.tolist() != self.structure.tolist():
            index, kernel_size, *dilations = stored.tolist()
            error_msgs.append(
                f"{prefix}structure: the checkpoint was trained with direction {list(REVERSED)[index]!r}, kernel_size "
                f"{kernel_size}, dilations {dilations}; this head has {self.direction!r}, {self.structure[1].item()}, "
                f"{list(self.dilations)}. Use the checkpoint's values or fit again"
            )
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
