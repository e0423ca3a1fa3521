"""Small tables of the scores of each group of images: what resampling of patients needs instead of their pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dino_uad.metrics.bootstrap import Group, gather_units, group_keys
from dino_uad.metrics.levels import COUNTS, Levels, blocks
from dino_uad.parallel import gather_rows


class GroupLevels:
    """Normal and anomalous pixels of each group of images (a patient, or one image), by score.

    Pixels are not kept. An image becomes a table of at most a few thousand :class:`~dino_uad.metrics.levels.Levels`, 20
    bytes each and 8 for each further row (512 x 512 pixels about 100 KB). Two tables of as many images are joined to
    one, so a group keeps one for each power of two in its number of images. In the end the levels of all groups
    together are joined once more, so that all are counted on the same ones.

    Error: a join moves the number of pixels above any threshold by at most 1/256 of it. With m images in the largest
    group a count is right to ``d = (2 + log2 m) / 256``, and AUROC, AUPR, largest F1 and AUPRO to ``2 d``, 0.016 for
    single images. That is the worst case; the errors of many images are of either sign, and what is measured is below
    0.0005. Maps that rank the pixels alike have the same tables: between those there is no error.

    Args:
        weights: how many further rows, beside the two counts, each pixel may have.
        device: on which processes exchange tables, and where the result is.
    """

    def __init__(self, weights: int = 0, device: torch.device | str = "cpu") -> None:
        self.rows, self.device = COUNTS + weights, device
        self._tables: dict[int, list[tuple[int, Levels]]] = {}

    def add(self, group: Group, scores: Tensor, mask: Tensor, weights: Sequence[Tensor] = ()) -> None:
        """Add an image.

        Args:
            group: that it belongs to.
            scores: of its pixels, any shape; rounded to float32.
            mask: bool, the same shape.
            weights: further rows, the same shape.

        Raises:
            ValueError: scores that are not finite.
        """
        values = scores.detach().float().flatten().cpu().numpy()
        if not np.isfinite(values).all():
            raise ValueError("anomaly scores contain NaN or Inf, expected finite numbers")
        marked = mask.flatten().cpu()
        rows = torch.stack([~marked, marked, *(weight.flatten().cpu() for weight in weights)]).double().numpy()
        (key,) = group_keys([group], 1)
        tables, images, table = self._tables.setdefault(key, []), 1, Levels.of_pixels(values, rows).coarser()
        while tables and tables[-1][0] == images:  # as a binary counter carries: log2 times, not once an image
            images, table = 2 * images, Levels.joined(tables.pop()[1], table).coarser()
        tables.append((images, table))

    @property
    def keys(self) -> list[int]:
        """Numbers of this process's groups, in the order in which they came."""
        return list(self._tables)

    def counts(self) -> Tensor:
        """``[groups,rows,K]`` float64 of all processes at K levels, ascending; groups in the order of their keys."""
        units, _ = gather_units(self.keys, self.device)
        tables = [Levels.joined(*(table for _, table in tables)) for tables in self._tables.values()]
        empty = Levels(np.zeros(0, np.float32), np.zeros((self.rows, 0)))
        columns = Levels(
            *(np.concatenate([getattr(t, n) for t in [empty, *tables]], axis=-1) for n in ("scores", "weights"))
        )
        keys = np.repeat(np.array(self.keys, dtype=np.int64), [len(table.scores) for table in tables])
        scores, weights, keys = (
            gather_rows(torch.from_numpy(part).to(self.device)).cpu().numpy()
            for part in (columns.scores, np.ascontiguousarray(columns.weights.T), keys)
        )
        unit = np.unique(keys, return_inverse=True)[1]
        pooled = Levels.of_pixels(scores, np.ascontiguousarray(weights.T))
        number = blocks(pooled.weights)[np.searchsorted(pooled.scores, scores)]
        levels = int(number.max()) + 1 if len(number) else 1  # the metrics want at least one
        flat = unit * levels + number
        dense = [np.bincount(flat, row, units * levels).reshape(units, levels) for row in weights.T]
        return torch.from_numpy(np.stack(dense, axis=1)).double().to(self.device)
