"""The network of every bundle: frozen backbone, fitted head, upsampling; image in, anomaly map out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dino_uad.backbones import DinoBackbone
from dino_uad.detector import fingerprint
from dino_uad.detector.model_file import load_model
from dino_uad.detector.normal_scans import NormalScans
from dino_uad.detector.operating_points import FALSE_POSITIVE_RATES
from dino_uad.detector.upsample import upsample_scores
from dino_uad.exact import without_autocast
from dino_uad.heads import Head


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
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.image_size = _checked_size(image_size, backbone)
        if head.embed_dim != backbone.embed_dim:
            raise ValueError(
                f"the head expects {head.embed_dim} channels, backbone {backbone.arch} gives {backbone.embed_dim}; "
                "set the head's embed_dim to @network_def#backbone.embed_dim"
            )
        self.backbone = backbone
        self.head = head
        self.smoothing_sigma = float(smoothing_sigma)
        self.dropout = nn.Dropout2d(float(dropout))
        self.facts = {
            "arch": backbone.arch,
            "weights": backbone.identity[:16],
            "layers": list(backbone.layers),
            "final_norm": backbone.final_norm,
            "image_size": list(self.image_size),
            "method": type(head).__name__,
            "preprocessing": dict(preprocessing or {}),
            "slices": dict(slices or {}),
        }
        self.register_buffer("fingerprint", fingerprint.encode(self.facts))
        self.register_buffer("thresholds", torch.full((len(FALSE_POSITIVE_RATES),), torch.nan))
        self.register_buffer("image_score_range", torch.full((2,), torch.nan))
        self.normal_scans = NormalScans()
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

    def score(self, embeddings: Tensor, cls: Tensor) -> Tensor:
        """The head's scores ``[B,1,h,w]`` of what :meth:`embed` gave, in float32 under autocast too."""
        with without_autocast(embeddings.device):
            return self.head.score(embeddings, cls)

    def upsample(self, patch_scores: Tensor) -> Tensor:
        """Bring patch scores ``[B,1,h,w]`` to the anomaly map ``[B,1,H,W]``."""
        with without_autocast(patch_scores.device):
            return upsample_scores(patch_scores, self.image_size, self.smoothing_sigma)

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """Anomaly map ``pred`` ``[B,1,H,W]``, ``patch_scores`` ``[B,1,h,w]`` and ``image_score`` ``[B]``."""
        embeddings, cls = self.embed(image)
        patch_scores = self.score(self.dropout(embeddings), cls)
        return {
            "pred": self.upsample(patch_scores),
            "patch_scores": patch_scores,
            "image_score": self.head.image_score(patch_scores),
        }

    def forward(self, image: Tensor) -> Tensor:
        """``[B,1|3,H,W]`` in [0, 1] to the anomaly map ``[B,1,H,W]`` float32; higher is more anomalous."""
        embeddings, cls = self.embed(image)
        return self.upsample(self.score(self.dropout(embeddings), cls))

    def state_dict(self, *args, **kwargs) -> dict[str, Any]:
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "") + "backbone."
        for key in [key for key in state if key.startswith(prefix)]:
            del state[key]
        return state

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ) -> None:
        error_msgs += self._compare_fingerprint(state_dict.get(prefix + "fingerprint"))
        error_msgs += [
            f"{key}: NaN found in the checkpoint; it was damaged or its training failed, fit again"
            for key, value in state_dict.items()
            if key.startswith(prefix + "head.") and value.is_floating_point() and value.isnan().any()
        ]
        known = dict(self.backbone.state_dict(prefix=prefix + "backbone."))
        if prefix + "normal_scans.finding_threshold" not in state_dict:
            known |= self._uncalibrated(state_dict, prefix)
        for key, value in known.items():
            state_dict.setdefault(key, value)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _uncalibrated(self, state_dict: dict[str, Any], prefix: str) -> dict[str, Tensor]:
        """What a ``model.pt`` of version 0.1 lacks: decisions on whole scans, and thresholds finer than 1 %."""
        stored = state_dict.get(prefix + "thresholds")
        if stored is not None and stored.ndim == 1 and len(stored) < len(self.thresholds):
            missing = stored.new_full((len(self.thresholds) - len(stored),), torch.nan)
            state_dict[prefix + "thresholds"] = torch.cat([stored, missing])
        return NormalScans().state_dict(prefix=prefix + "normal_scans.")

    def _compare_fingerprint(self, stored: Tensor | None) -> list[str]:
        if stored is None:
            return ["no fingerprint found: this is not a checkpoint of an AnomalyDetector; fit it with train.json"]
        if stored.dtype != torch.uint8 or stored.shape != self.fingerprint.shape:
            return [f"fingerprint of {stored.dtype} {list(stored.shape)} found, uint8 [{fingerprint.SIZE}] expected"]
        try:
            return fingerprint.differences(fingerprint.decode(stored), self.facts)
        except (ValueError, AttributeError) as error:
            return [f"fingerprint cannot be read ({error}): the file is damaged"]


def _checked_size(image_size: Sequence[int], backbone: DinoBackbone) -> tuple[int, int]:
    """Height and width in pixels, if the backbone can divide them into patches."""
    if len(image_size) != 2 or any(isinstance(side, str) or int(side) != side for side in image_size):
        raise ValueError(
            f"image size is {image_size!r}; expected height and width, two positive whole numbers of pixels"
        )
    height, width = (int(side) for side in image_size)
    patch = backbone.patch_size
    if any(side < patch or side % patch for side in (height, width)):
        raise ValueError(
            f"image_size {[height, width]} is not a multiple of the {patch} px patches of {backbone.arch}; "
            f"use for example {patch * round(448 / patch)}"
        )
    return height, width
