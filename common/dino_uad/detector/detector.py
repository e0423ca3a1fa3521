"""The network of every bundle: what stands between an image, a frozen backbone, a fitted head, and an anomaly map.

=====================  =============================================================================================
foreground             :mod:`dino_uad.detector.foreground`: which patches show the body
neighbourhood          :mod:`dino_uad.heads.neighbourhood`: unit embeddings averaged over neighbours, before the head
baseline               :mod:`dino_uad.detector.baseline`: a share of an image's lower scores is subtracted from all
units                  :mod:`dino_uad.detector.units`: ``-log10`` of the share of normal patches that score higher
upsampling             :mod:`dino_uad.detector.upsample`
=====================  =============================================================================================

All methods share it. Every step can be turned off; as published, they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dino_uad.backbones import DinoBackbone
from dino_uad.detector import fingerprint
from dino_uad.detector.baseline import ImageBaseline
from dino_uad.detector.fitted_images import FittedImages
from dino_uad.detector.foreground import Foreground
from dino_uad.detector.model_file import load_model, not_numbers
from dino_uad.detector.normal_scans import NormalScans
from dino_uad.detector.older_models import complete
from dino_uad.detector.operating_points import FALSE_POSITIVE_RATES
from dino_uad.detector.units import Units
from dino_uad.detector.upsample import upsample_scores
from dino_uad.exact import without_autocast
from dino_uad.heads import Head, image_score, nonempty_mask
from dino_uad.settings import require, require_count, require_number, require_size
from dino_uad.tracing import is_traced

FEWEST = 3
"""Patches in an image score at least, where a neighbourhood makes each of them part of the next one."""


class AnomalyDetector(nn.Module):
    """Joins a frozen DINO backbone and an anomaly head.

    ``state_dict()`` holds the head, the calibration and a fingerprint of what it was fitted with; the backbone comes
    from the weight store and is left out. Loading a state dict of another backbone, resolution or preprocessing fails
    with a message that names the difference.

    Args:
        backbone: frozen feature extractor, ``[B,1|3,H,W]`` in [0, 1] to embeddings ``[B,C,h,w]`` and cls ``[B,C]``.
        head: the method.
        image_size: ``(H, W)`` of the images, a multiple of the backbone's patch size.
        smoothing_sigma: standard deviation in pixels of the Gaussian on the upsampled map; 0 turns it off.
        preprocessing: what was done to the images before (JSON types), stored in the fingerprint.
        slices: how a fit chooses the slices of volumes (JSON types), stored there too; inference takes it as default
            (:func:`~dino_uad.detector.model_file.fitted_slices`).
        checkpoint: a ``model.pt`` to load at construction. Heads with a memory bank have buffers of data-dependent
            size, which MONAI's ``bundle.load`` can only copy into a network that already has them.
        foreground: which patches are learned from and scored: ``auto`` finds a dark background, ``nonzero``, a
            threshold in [0, 1), or ``none`` for all.
        neighbourhood: side in patches, odd, of the square over which unit embeddings are averaged; 1 is off.
        baseline: share of the 25th percentile of an image's foreground scores that is subtracted, 0 is off; ``auto``
            learns it from normal validation images.
        units: whether maps are in the common units of all methods; else in those of the head's score.
        dropout: probability of zeroing an embedding channel in training mode; MONAI Label's epistemic scoring sets it.
    """

    def __init__(
        self,
        backbone: DinoBackbone,
        head: Head,
        image_size: Sequence[int] = (448, 448),
        smoothing_sigma: float = 0.0,
        preprocessing: Mapping[str, Any] | None = None,
        slices: Mapping[str, Any] | None = None,
        checkpoint: str | None = None,
        foreground: str | float = "none",
        neighbourhood: int = 1,
        baseline: float | str = 0.0,
        units: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.image_size = _checked_size(image_size, backbone)
        if head.embed_dim != backbone.embed_dim:
            raise ValueError(
                f"the head expects {head.embed_dim} channels, backbone {backbone.arch} gives {backbone.embed_dim}; "
                "set the head's embed_dim to @network_def#backbone.embed_dim"
            )
        require_count("neighbourhood", neighbourhood)
        require("neighbourhood", neighbourhood, neighbourhood % 2 == 1, "an odd number of patches, 1 for none")
        require_number("smoothing_sigma", smoothing_sigma, 0, max(self.image_size))
        require_number("dropout", dropout, 0, 1, ends="[)")
        self.backbone = backbone
        self.head = head
        self.foreground = Foreground(foreground)
        self.neighbourhood = head.neighbourhood = int(neighbourhood)
        self.fewest = 1 if neighbourhood == 1 else FEWEST
        self.baseline = ImageBaseline(baseline)
        self.units = Units()
        self.uses_units = bool(units)
        self.smoothing_sigma = float(smoothing_sigma)
        self.dropout = nn.Dropout2d(float(dropout))
        self.facts = self._own_facts() | {"preprocessing": dict(preprocessing or {}), "slices": dict(slices or {})}
        self.axcodes = str(self.facts["preprocessing"].get("axcodes", "PLS"))  # in which volumes are cut into slices
        self.register_buffer("fingerprint", fingerprint.encode(self.facts))
        # Of the map, at rates of the foreground's pixels, and of all pixels, as published.
        self.register_buffer("thresholds", torch.full((len(FALSE_POSITIVE_RATES),), torch.nan))
        self.register_buffer("pixel_thresholds", torch.full((len(FALSE_POSITIVE_RATES),), torch.nan))
        self.normal_scans = NormalScans()
        self.fitted_images = FittedImages()
        if checkpoint is not None:
            load_model(self, checkpoint)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches per column and row, ``(h, w)``."""
        height, width = self.image_size
        return height // self.backbone.patch_size, width // self.backbone.patch_size

    def embed(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Run the backbone on ``[B,1|3,H,W]`` in [0, 1]; returns embeddings ``[B,C,h,w]`` and cls ``[B,C]``."""
        if tuple(image.shape[-2:]) != self.image_size:
            raise ValueError(
                f"image of {tuple(image.shape[-2:])} px found, this detector was built for {self.image_size}; "
                "resize in the preprocessing or change image_size and fit again"
            )
        return self.backbone(image)

    def find_foreground(self, image: Tensor, threshold: Tensor | None = None) -> Tensor:
        """Patches ``[B,1,h,w]`` bool of ``[B,1|3,H,W]`` that are scored; ``threshold`` as for :meth:`predict`."""
        return self.foreground(image, self.grid_size, threshold)

    def prepare(self, embeddings: Tensor) -> Tensor:
        """Average embeddings ``[B,C,h,w]`` over the neighbourhood, for fitting and scoring (:meth:`Head.prepare`)."""
        return self.head.prepare(embeddings)

    def mask(self, foreground: Tensor | None) -> Tensor | None:
        """The foreground ``[B,1,h,w]`` as heads take it: None where nothing is left out."""
        return None if self.foreground.mode == "none" else foreground

    def raw_scores(self, embeddings: Tensor, cls: Tensor, foreground: Tensor | None = None) -> Tensor:
        """The head's scores ``[B,1,h,w]`` of what :meth:`embed` gave, in float32 under autocast too."""
        with without_autocast(embeddings.device):
            return self.head.score(self.dropout(self.prepare(embeddings)), cls, self.mask(foreground))

    def assess(self, raw_scores: Tensor, foreground: Tensor) -> dict[str, Tensor]:
        """Raw scores and foreground ``[B,1,h,w]`` to what :meth:`predict` returns."""
        with without_autocast(raw_scores.device):
            scores = self.baseline(raw_scores, foreground)
            if self.uses_units:
                if not is_traced() and not self.units.fitted:
                    raise RuntimeError(
                        "the detector is not calibrated: no units yet; fit it with train.json, or set "
                        "network_def#units to false for raw scores"
                    )
                scores = self.units(scores)
            scores = torch.where(foreground, scores, self._outside(scores, foreground))
            return {
                "pred": self.upsample(scores, foreground),
                "patch_scores": scores,
                "raw_scores": raw_scores,
                "foreground": foreground,
                "image_score": image_score(scores, foreground, self.fewest),
            }

    def upsample(self, scores: Tensor, foreground: Tensor) -> Tensor:
        """Patch scores and foreground ``[B,1,h,w]`` to the map ``[B,1,H,W]``; the background is not smoothed in."""
        if self.foreground.mode == "none":
            return upsample_scores(scores, self.image_size, self.smoothing_sigma)
        weight = foreground.to(scores.dtype)
        smooth, weight = (
            upsample_scores(part, self.image_size, self.smoothing_sigma) for part in (scores * weight, weight)
        )
        smooth = smooth / weight.clamp_min(1e-6)
        return torch.where(self.inside(foreground), smooth, self._outside(scores, foreground))

    def inside(self, foreground: Tensor) -> Tensor:
        """The pixels ``[B,1,H,W]`` bool of the patches ``[B,1,h,w]`` that are foreground."""
        return F.interpolate(foreground.float(), self.image_size, mode="nearest") > 0

    def _outside(self, scores: Tensor, foreground: Tensor) -> Tensor:
        """Background score ``[B,1,1,1]``, below every calibrated threshold."""
        if self.uses_units:
            return torch.zeros_like(scores[:, :, :1, :1])
        lowest = scores.masked_fill(~nonempty_mask(foreground, scores), torch.inf).amin(dim=(2, 3), keepdim=True)
        return torch.minimum(lowest, torch.nan_to_num(self.units.knots[0], nan=torch.inf, posinf=torch.inf))

    def predict(self, image: Tensor, threshold: Tensor | None = None) -> dict[str, Tensor]:
        """All that is known of ``[B,1|3,H,W]`` images in [0, 1].

        Args:
            image: the images.
            threshold: of the foreground, ``[B]``, for slices, which share their volume's
                (:meth:`~dino_uad.detector.foreground.Foreground.together`); each image's own when None.

        Returns:
            ``pred`` ``[B,1,H,W]`` (the anomaly map), ``patch_scores`` ``[B,1,h,w]`` (what it is made of),
            ``raw_scores`` ``[B,1,h,w]`` (the head's), ``foreground`` ``[B,1,h,w]`` bool, and ``image_score`` ``[B]``,
            the mean of the largest 1 % of the foreground's patch scores, with a neighbourhood of at least three.
        """
        embeddings, cls = self.embed(image)
        foreground = self.find_foreground(image, threshold)
        return self.assess(self.raw_scores(embeddings, cls, foreground), foreground)

    def forward(self, image: Tensor, threshold: Tensor | None = None) -> Tensor:
        """``[B,1|3,H,W]`` in [0, 1] to the anomaly map ``[B,1,H,W]`` float32; higher is more anomalous."""
        return self.predict(image, threshold)["pred"]

    def _own_facts(self) -> dict[str, Any]:
        """What the fingerprint says of the network itself, in the order in which reports list it."""
        return {
            **fingerprint.of_backbone(self.backbone),
            **fingerprint.of_head(self.head),
            "image_size": list(self.image_size),
            "foreground": self.foreground.mode,
            "neighbourhood": self.neighbourhood,
            "baseline": self.baseline.mode,
            "units": self.uses_units,
            "smoothing_sigma": self.smoothing_sigma,
        }

    def state_dict(self, *args, **kwargs) -> dict[str, Any]:
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "") + "backbone."
        for key in [key for key in state if key.startswith(prefix)]:
            del state[key]
        return state

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ) -> None:
        error_msgs += fingerprint.mismatches(state_dict.get(prefix + "fingerprint"), self.facts)
        error_msgs += not_numbers(state_dict, prefix + "head.")
        complete(state_dict, prefix, self)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _checked_size(image_size: Sequence[int], backbone: DinoBackbone) -> tuple[int, int]:
    """Height and width in pixels, if the backbone can divide them into patches."""
    height, width = require_size("image size", image_size)
    patch = backbone.patch_size
    if any(side < patch or side % patch for side in (height, width)):
        raise ValueError(
            f"image_size {[height, width]} is not a multiple of the {patch} px patches of {backbone.arch}; "
            f"use for example {patch * round(448 / patch)}"
        )
    return height, width
