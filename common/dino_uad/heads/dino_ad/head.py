"""DINO-AD (Huo et al., arXiv 2602.03870): compare a query with foreground clusters of the most similar normal image.

The clusters depend on the normal image alone, so they are computed once when fitting; a query then costs the product of
its class token with those of the normal images, and one cosine per patch: the mean over centroids of a cosine is the
product with the mean of the unit centroids.
"""

from __future__ import annotations

import zlib
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.heads.dino_ad.kmeans import kmeans
from dino_uad.heads.growing import GrowingRows
from dino_uad.heads.head import Head
from dino_uad.heads.masking import fill_background, nonempty_mask, patch_mean
from dino_uad.parallel import all_reduce_sum, gather_rows
from dino_uad.settings import require, require_choice, require_count
from dino_uad.tracing import is_traced


class DinoADHead(Head):
    """Score a patch by ``1 - mean over centroids of its cosine similarity`` to the support image's clusters.

    Args:
        embed_dim: number of channels ``C``.
        n_clusters: clusters ``K`` of each normal image's foreground; the paper uses 2 and ablates 1 to 4.
        support: ``nearest`` takes the normal image whose class token is most similar; ``random``, an ablation, one that
            is drawn from the seed and the query itself, whatever else is scored. Only ``nearest`` can be exported.
        normalization: ``minmax`` rescales the similarities of every image to 0..1 as the paper does, so that every
            image, a healthy one too, reaches 1; ``none`` keeps the cosine distance, comparable between images;
            ``calibrated`` counts it in standard deviations above the mean of normal validation patches.
        seed: of the K-means starts and the random support.
        n_support: normal images whose centroids count together, the nearest ones; all where there are fewer.
        similarity: ``mean`` over centroids, as published, or ``max``, which a normal patch near one of many keeps high.
    """

    title = "DINO-AD"
    dynamic_buffers = ("class_tokens", "centroids")
    decides = ("n_support", "normalization", "similarity", "support")
    single_pass = True

    def __init__(
        self,
        embed_dim: int,
        n_clusters: int = 2,
        support: Literal["nearest", "random"] = "nearest",
        normalization: Literal["minmax", "none", "calibrated"] = "minmax",
        seed: int = 0,
        n_support: int = 1,
        similarity: Literal["mean", "max"] = "mean",
    ) -> None:
        super().__init__(embed_dim)
        require_count("n_clusters", n_clusters)
        require_count("n_support", n_support)
        require_choice("support", support, ("nearest", "random"))
        require_choice("normalization", normalization, ("minmax", "none", "calibrated"))
        require_choice("similarity", similarity, ("mean", "max"))
        require("n_support", n_support, support == "nearest" or n_support == 1, "1 for a random support")
        self.n_support, self.similarity = n_support, similarity
        self.n_clusters, self.support, self.normalization, self.seed = n_clusters, support, normalization, seed
        self.register_buffer("class_tokens", torch.empty(0, embed_dim))
        self.register_buffer("centroids", torch.empty(0, n_clusters, embed_dim, dtype=torch.float16))
        self.register_buffer("normal_mean_std", torch.zeros(2))  # a standard deviation of 0 means not calibrated
        self._pending = (GrowingRows(), GrowingRows())  # class tokens and centroids
        self._moments = torch.zeros(3, dtype=torch.float64)

    def deciding(self) -> dict[str, Any]:
        return super().deciding() | ({"seed": self.seed} if self.support == "random" else {})

    @property
    def fitted(self) -> bool:
        return self.class_tokens.numel() > 0

    def fit_batch(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> dict[str, float]:
        """Cluster the foreground of each image; every rank keeps all images, in the order of the joined batches."""
        cls = self._class_token(cls)
        rows = embeddings.float().flatten(2).transpose(1, 2)
        foreground = nonempty_mask(mask, embeddings).flatten(1)
        clusters = kmeans(rows, self.n_clusters, foreground, seed=self.seed)
        for pending, learned in zip(self._pending, (_unit(cls), _unit(clusters.centroids).half()), strict=True):
            pending.append(gather_rows(learned))
        return {"images": float(len(self._pending[0]))}

    def end_epoch(self) -> None:
        """Make the gathered images the model; a second pass over the data replaces the first."""
        if not len(self._pending[0]):
            raise RuntimeError("DINO-AD was given no normal image: check the training data list")
        self.class_tokens, self.centroids = (pending.take() for pending in self._pending)
        self._pending = (GrowingRows(), GrowingRows())

    def calibrate_batch(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Add the cosine distances of the foreground patches of normal validation images to the statistics."""
        distance = self._cosine_distance(embeddings, cls)[nonempty_mask(mask, embeddings)].double()
        moments = torch.stack([torch.full_like(distance.sum(), len(distance)), distance.sum(), distance.square().sum()])
        self._moments = self._moments.to(moments.device) + moments

    def end_calibration(self) -> None:
        """Store mean and standard deviation of all ranks' normal patches; without any, keep what there is."""
        (moments,) = all_reduce_sum(self._moments.to(self.centroids.device))
        if moments[0] > 0:
            mean = moments[1] / moments[0]
            std = (moments[2] / moments[0] - mean.square()).clamp_min(1e-12).sqrt()
            self.normal_mean_std.copy_(torch.stack([mean, std]))
        self._moments = torch.zeros(3, dtype=torch.float64)

    def score(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Anomaly score of every patch; where ``mask`` is given, background gets the lowest foreground score."""
        distance = fill_background(self._cosine_distance(embeddings, cls), mask)
        if self.normalization == "minmax":
            low, high = distance.amin(dim=(2, 3), keepdim=True), distance.amax(dim=(2, 3), keepdim=True)
            return (distance - low) / (high - low).clamp_min(1e-12)
        if self.normalization == "calibrated":
            if not is_traced() and self.normal_mean_std[1] == 0:
                raise RuntimeError(
                    "DINO-AD is not calibrated: run the pass over normal validation images, see train.json"
                )
            return (distance - self.normal_mean_std[0]) / self.normal_mean_std[1]
        return distance

    def log_likelihood(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Minus the mean cosine distance of each image's foreground, ``[B]``: it needs no calibration yet."""
        return patch_mean(-self._cosine_distance(embeddings, cls), nonempty_mask(mask, embeddings))

    def _cosine_distance(self, embeddings: Tensor, cls: Tensor | None) -> Tensor:
        """``[B,1,h,w]`` one minus the mean, or largest, cosine similarity to the centroids."""
        if not self.fitted:
            raise RuntimeError("DINO-AD is not fitted: run train first or load models/model.pt")
        centroids = self.centroids[self.supports(self._class_token(cls))].float().flatten(1, 2)
        if self.similarity == "mean":
            centroids = centroids.mean(dim=1, keepdim=True)
        rows = embeddings.float().flatten(2)
        # Dividing the product by the norm spares a normalised copy of the embeddings.
        cosine = (centroids @ rows).amax(dim=1, keepdim=True) / torch.linalg.vector_norm(
            rows, dim=1, keepdim=True
        ).clamp_min(1e-12)
        return 1 - cosine.view(-1, 1, *embeddings.shape[-2:])

    def supports(self, cls: Tensor) -> Tensor:
        """``[B,S]`` indices of the normal images that each query is compared with."""
        if self.n_support == 1:
            return self._support(cls)[:, None]
        count = min(self.n_support, len(self.class_tokens))
        return (_unit(cls) @ self.class_tokens.T).topk(count, dim=1).indices

    def _support(self, cls: Tensor) -> Tensor:
        """``[B]`` index of the normal image that each query is compared with."""
        if self.support == "nearest":
            return (_unit(cls) @ self.class_tokens.T).argmax(dim=1)
        digests = [zlib.crc32(token.tobytes(), self.seed) for token in cls.half().cpu().numpy()]
        return torch.tensor(digests, dtype=torch.int64, device=cls.device) % len(self.class_tokens)

    @staticmethod
    def _class_token(cls: Tensor | None) -> Tensor:
        if cls is None:
            raise ValueError("DINO-AD compares class tokens and found none: the batch needs the key 'cls', [B,C]")
        return cls


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors.float(), dim=-1)
