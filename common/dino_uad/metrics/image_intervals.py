"""Bootstrap confidence intervals of the image metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from dino_uad.metrics.bootstrap import Group, gather_units, group_keys, percentile_intervals, why_undefined
from dino_uad.metrics.curves import CURVES, score_levels
from dino_uad.metrics.image_curves import ImageCurves
from dino_uad.metrics.maps import warn_undefined


class ImageIntervals(ImageCurves):
    """Intervals ``image_auroc_low``, ``image_auroc_high``, likewise for ``image_aupr`` and ``image_f1_max``.

    For the method see :mod:`dino_uad.metrics.bootstrap`. Exact; 17 bytes per image.

    Args:
        output_transform: from the engine's output to ``(scores, labels, groups)``: those of
            :class:`~dino_uad.metrics.ImageCurves`, and B integers or strings such as patient ids.
        replicates: number of bootstrap samples.
        confidence: coverage of the interval.
        seed: of the generator that draws them.
        device: where the scores are kept.
    """

    def __init__(
        self,
        output_transform: Callable = lambda output: output,
        replicates: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.replicates, self.confidence, self.seed = replicates, confidence, seed
        super().__init__(output_transform, device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._keys: list[int] = []

    @reinit__is_reduced
    def update(self, output: tuple[Tensor | Sequence, Tensor | Sequence, Sequence[Group]]) -> None:
        """Add a batch; raises :class:`ValueError` if scores, labels and groups differ in length."""
        scores, labels, groups = output
        super().update((scores, labels))
        self._keys += group_keys(groups, len(scores))

    def compute(self) -> dict[str, float]:
        """Lower and upper end of each interval over all processes; NaN, with a warning, for one class or one group."""
        scores, labels = self._gathered()
        units, place = gather_units(self._keys, self._device)
        level, levels = score_levels(scores)

        def metrics(times: Tensor) -> dict[str, Tensor]:
            per_image = times[:, place]
            negatives, positives = (
                times.new_zeros(len(times), levels).index_add_(1, level[kind], per_image[:, kind])
                for kind in (~labels, labels)
            )
            return {f"image_{name}": curve(negatives, positives) for name, curve in CURVES.items()}

        result = percentile_intervals(metrics, units, self.replicates, self.seed, self.confidence, self._device)
        warn_undefined(result, why_undefined(units, "images"))
        return result
