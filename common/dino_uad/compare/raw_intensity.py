"""The baseline that every method has to beat: the brightness of a pixel."""

from __future__ import annotations

from torch import Tensor, nn


class IntensityDetector(nn.Module):
    """Brighter is more anomalous; the image score is the mean of the brightest 1 % of the pixels."""

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """``[B,1|3,H,W]`` in [0, 1] to the map ``pred`` ``[B,1,H,W]`` and ``image_score`` ``[B]``."""
        brightness = image.amax(dim=1, keepdim=True)
        pixels = brightness.flatten(1)
        largest = pixels.topk(max(1, pixels.shape[1] // 100), dim=1).values
        return {"pred": brightness, "patch_scores": brightness, "image_score": largest.mean(dim=1)}
