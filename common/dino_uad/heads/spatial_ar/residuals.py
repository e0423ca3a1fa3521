"""The Gaussian of an autoregressive model's residuals: what a prediction error is measured by."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dino_uad.parallel import all_reduce_sum
from dino_uad.products import linear

SHRINKAGE = 0.01  # least share of the mean eigenvalue in a covariance: directions hardly ever seen stay finite


class ResidualGaussian(nn.Module):
    """Mean and full covariance of residuals, one Gaussian a direction of prediction.

    The mean squared error takes all directions of the embedding space for equally likely, and so scores what is hard to
    predict (edges, skull) rather than what is abnormal. The Mahalanobis norm under the covariance of normal residuals
    does not. The covariance is shrunk towards its mean eigenvalue by the share that the oracle approximating estimator
    gives (Chen et al., IEEE Trans. Signal Process. 58(10), 2010, eq. 23), at least 1 %: few patches, or none of them
    varying in some direction, still give a proper density.

    Args:
        channels: ``C``.
        directions: ``D``, predictions of each patch.
    """

    def __init__(self, channels: int, directions: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("mean", torch.zeros(directions, channels))
        self.register_buffer("whitening", torch.zeros(directions, channels, channels))
        self.register_buffer("log_det", torch.zeros(directions))
        self.register_buffer("rows", torch.zeros(()))
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def fitted(self) -> bool:
        """Whether there is a covariance."""
        return bool(self.rows > 0)

    @torch.no_grad()
    def measure(self, residuals: Tensor, mask: Tensor | None = None) -> None:
        """Add the patches of ``[B,D,C,h,w]``, those where ``mask`` ``[B,1,h,w]`` is true, to the statistics."""
        rows = residuals.double().permute(1, 0, 3, 4, 2)  # [D,B,h,w,C]
        rows = rows.flatten(1, 3) if mask is None else rows[:, mask[:, 0]]
        count = rows.new_tensor([rows.shape[1]])
        new = count, rows.sum(dim=1), rows.transpose(1, 2) @ rows
        self._sums = new if self._sums is None else tuple(a + b for a, b in zip(self._sums, new, strict=True))

    def finish(self) -> None:
        """Turn the sums of all ranks into the Gaussians.

        Raises:
            RuntimeError: no patch was measured.
        """
        if self._sums is None:
            raise RuntimeError("no batch of normal images to measure the residuals on: check the data lists")
        # Buffers must not be inference tensors, or the head could not be trained on or traced afterwards.
        with torch.inference_mode(False), torch.no_grad():
            count, total, squares = all_reduce_sum(*(part.clone() for part in self._sums))
            self._sums = None
            if count == 0:
                raise RuntimeError("no valid patch in the normal images: nothing to measure residuals on")
            mean = total / count
            covariance = shrunk(squares / count - mean[:, :, None] * mean[:, None, :], float(count))
            factor = torch.linalg.cholesky(covariance)
            identity = torch.eye(self.channels, dtype=factor.dtype, device=factor.device).expand_as(factor)
            self.rows.copy_(count[0])
            self.mean.copy_(mean)
            self.whitening.copy_(torch.linalg.solve_triangular(factor, identity, upper=False))
            self.log_det.copy_(2 * factor.diagonal(dim1=1, dim2=2).log().sum(dim=1))

    def squared_norm(self, residuals: Tensor) -> Tensor:
        """Squared Mahalanobis norm of residuals ``[B,D,C,h,w]``, ``[B,D,h,w]``; for normal patches about ``C``."""
        rows = residuals.flatten(3).transpose(2, 3) - self.mean[None, :, None]  # [B,D,h*w,C]
        white = [linear(one, whitening) for one, whitening in zip(rows.unbind(dim=1), self.whitening, strict=True)]
        return torch.stack([one.square().sum(dim=2) for one in white], dim=1).unflatten(2, residuals.shape[3:])

    def log_density(self, residuals: Tensor) -> Tensor:
        """Log-density of residuals ``[B,D,C,h,w]`` in nats, ``[B,D,h,w]``."""
        constant = self.log_det + self.channels * math.log(2 * math.pi)
        return -0.5 * (self.squared_norm(residuals) + constant[None, :, None, None])


def shrunk(covariance: Tensor, count: float) -> Tensor:
    """Sample covariances ``[D,C,C]`` of ``count`` rows, shrunk towards their mean eigenvalue: positive definite."""
    channels = covariance.shape[-1]
    trace = covariance.diagonal(dim1=1, dim2=2).sum(dim=1)
    squared = covariance.square().sum(dim=(1, 2))
    # As scikit-learn's OAS has it: the term in 2 / p of equation 23 left out, which is negligible for many channels.
    numerator = squared / channels**2 + (trace / channels) ** 2
    denominator = (count + 1) * (squared / channels**2 - (trace / channels) ** 2 / channels)
    share = torch.where(denominator > 0, numerator / denominator, 1.0).clamp(SHRINKAGE, 1.0)[:, None, None]
    level = (trace / channels).clamp_min(torch.finfo(torch.float32).tiny)[:, None, None]
    identity = torch.eye(channels, dtype=covariance.dtype, device=covariance.device)
    return (1 - share) * covariance + share * level * identity
