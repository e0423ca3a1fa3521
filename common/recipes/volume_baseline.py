"""What the slices of a volume are best measured from: each from itself, all from the volume, or from their neighbours.

The detector subtracts a share of each slice's own 25th percentile. Here the share is taken of three others in turn: the
slices' percentiles averaged along the volume (:data:`WIDTHS`), and that of the whole volume. Models, folds and counts
are those of ``volumes.py``, whose folder of models and embeddings is taken up if it is given.

    python common/recipes/volume_baseline.py data/lgg_volumes out --bundles "anomaly_dino,dpmm" --image_size 224
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from monai.bundle import ConfigParser
from scipy.ndimage import gaussian_filter1d
from scipy.stats import mannwhitneyu
from torch import Tensor
from volumes import RATES, Scan, lesion_shares, patient_shares, said_of_all, table, write_page

from dino_uad.detector.baseline import ImageBaseline
from dino_uad.metrics import PixelCurves

WIDTHS = {"slice": 0.0, "2 slices": 2.0, "5 slices": 5.0, "volume": np.inf}
"""Standard deviation, in slices, of the Gaussian along the volume."""


class StackBaseline(ImageBaseline):
    """The baseline of a batch that is the slices of one volume, in their order.

    Args:
        share: as for the detector's.
        width: of the Gaussian that averages the slices' percentiles; without bound all slices have that of the volume.
    """

    def __init__(self, share: float | str, width: float) -> None:
        super().__init__(share)
        self.width = width

    def measure(self, scores: Tensor, foreground: Tensor) -> Tensor:
        """``[B,1,h,w]`` to ``[B]``."""
        if np.isinf(self.width):
            joined = (part.reshape(1, 1, -1, part.shape[-1]) for part in (scores, foreground))
            return super().measure(*joined).expand(len(scores))
        own = super().measure(scores, foreground)
        seen = foreground.flatten(1).any(dim=1)
        if self.width and seen.any():
            own[seen] = torch.from_numpy(gaussian_filter1d(own[seen].numpy(), self.width, mode="nearest"))
        return own


def measure(
    dataset_dir: str, out: str, bundles: Any = "anomaly_dino,dpmm", image_size: int = 224, folds: int = 5, **overrides
) -> None:
    """Write ``volume_baseline.md`` into ``out``; the arguments are those of ``volumes.py``."""
    head = ["measured from", "pixel AUPR", "AUROC of slices"]
    head += [f"marked at {rate:.0%}, mean, highest" for rate in RATES]
    head += ["tumour-free slices flagged, mean, highest", "slices with tumour flagged"]
    head += [f"voxels of lesions marked at {rate:.0%}" for rate in RATES]

    def section(parser: ConfigParser) -> list[str]:
        network = parser.get_parsed_content("network")
        rows = []
        for name, width in WIDTHS.items():
            network.baseline = StackBaseline(network.baseline.mode, width)
            rows.append([name, *counted(said_of_all(parser, folds))])
        return table(head, rows)

    write_page("volume_baseline.md", section, dataset_dir, Path(out), bundles, image_size, overrides)


def counted(scans: Sequence[Scan]) -> list[str]:
    """The cells of a row."""
    pixels = PixelCurves()
    for scan in scans:
        pixels.update(tuple(torch.as_tensor(part).float()[:, None] for part in (scan.maps, scan.label)))
    ill = np.concatenate([scan.label.any(axis=(1, 2)) for scan in scans])
    scores = np.concatenate([scan.scores for scan in scans])
    auroc = mannwhitneyu(scores[ill], scores[~ill]).statistic / ill.sum() / (~ill).sum()
    *false, found = np.array([patient_shares(scan) for scan in scans]).T
    sizes = lesion_shares(scans)
    return [
        f"{pixels.compute()['pixel_aupr']:.3f}",
        f"{auroc:.3f}",
        *(f"{np.mean(shares):.1%}, {np.max(shares):.1%}" for shares in false),
        f"{np.nanmean(found):.1%}",
        *(f"{sizes[:, column].mean():.0%}" for column in range(1, 1 + len(RATES))),
    ]


if __name__ == "__main__":
    fire.Fire(measure)
