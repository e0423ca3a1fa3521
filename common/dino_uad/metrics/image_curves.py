"""Image-level AUROC, average precision and largest F1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from dino_uad.metrics.curves import CURVES, tied_levels
from dino_uad.metrics.maps import warn_undefined
from dino_uad.parallel import gather_rows


class ImageCurves(Metric):
    """``image_auroc``, ``image_aupr`` (average precision) and ``image_f1_max`` from one score per image.

    Exact: the scores themselves are kept, 9 bytes per image. Attach it as :class:`~dino_uad.metrics.PixelCurves`.

    Args:
        output_transform: from the engine's output to ``(scores, labels)``, tensors ``[B]`` or sequences of B numbers;
            labels are 1 for anomalous.
        device: where the scores are kept.
    """

    def __init__(self, output_transform: Callable = lambda output: output, device: str | torch.device = "cpu") -> None:
        super().__init__(output_transform, device, skip_unrolling=True, metrics_result_mode="flatten")

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all images."""
        self._scores = [torch.empty(0, dtype=torch.float64, device=self._device)]
        self._labels = [torch.empty(0, dtype=torch.bool, device=self._device)]

    @reinit__is_reduced
    def update(self, output: tuple[Tensor | Sequence, Tensor | Sequence]) -> None:
        """Add a batch ``(scores [B], labels [B])``; raises :class:`ValueError` if they differ in length."""
        scores, labels = (self._column(values) for values in output)
        if len(scores) != len(labels):
            raise ValueError(f"found {len(scores)} image scores and {len(labels)} labels, expected one label per score")
        self._scores.append(scores)
        self._labels.append(labels > 0.5)

    def compute(self) -> dict[str, float]:
        """The three numbers over all processes; NaN, with a warning, if the images are all of one class."""
        scores, labels = self._gathered()
        levels = tied_levels(scores, labels)
        result = {f"image_{name}": float(curve(*levels)) for name, curve in CURVES.items()}
        found = f"{int((~labels).sum())} normal and {int(labels.sum())} anomalous images"
        warn_undefined(result, f"found {found}, expected both kinds")
        return result

    def _gathered(self) -> tuple[Tensor, Tensor]:
        """Scores and labels ``[n]`` of all processes."""
        scores, labels = gather_rows(torch.cat(self._scores)), gather_rows(torch.cat(self._labels))
        if not scores.isfinite().all():
            position = int((~scores.isfinite()).nonzero()[0])
            raise ValueError(f"the score of image {position} is {float(scores[position])}, expected a finite number")
        return scores, labels

    def _column(self, values: Tensor | Sequence) -> Tensor:
        if not isinstance(values, Tensor):
            values = torch.stack([torch.as_tensor(value).reshape(()) for value in values]) if len(values) else []
        return torch.as_tensor(values, dtype=torch.float64, device=self._device).detach().reshape(-1)
