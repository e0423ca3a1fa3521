"""How fast pictures come to a backbone that takes no time, and embeddings to the disk: what a GPU would wait for."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from dino_uad import parallel
from dino_uad.bench.row import Row
from dino_uad.bench.rows.large_fit import draw_pictures, training
from dino_uad.bench.settings import Settings
from dino_uad.embeddings import EmbeddingDataset


def feeding(settings: Settings) -> Row:
    """400 pictures of 448 px, loaded by other processes, and constant embeddings of the size of two joined blocks."""
    count, side = settings.size((400, 448), (24, 56))
    workers = max(1, parallel.loader_workers(settings.device))
    size = {"pictures": count, "pixels": side, "processes that load": workers}
    row = Row("feeding", "Pictures to a GPU and embeddings to the disk", size, settings)
    with tempfile.TemporaryDirectory() as folder:
        draw_pictures(Path(folder) / "data", count, side)
        parser = training("dpmm", Path(folder), side, settings, num_workers=workers)
        dataset: EmbeddingDataset = parser.get_parsed_content("train#dataset")
        constant = _answer_at_once(dataset, side, settings)
        slices = dataset.slices()
        torch.set_num_threads(1)  # as a process that loads has
        row.time({"24 pictures": lambda: [slices[i] for i in range(24)]})
        torch.set_num_threads(settings.threads)
        row.figure("a process loads a picture in", 1e3 * row.timings["24 pictures"].wall_median / 24, "ms")
        before, own = time.perf_counter(), time.process_time()
        dataset.build()
        row.figure("pictures loaded, and embeddings written", count / (time.perf_counter() - before), "/s")
        row.figure("own processor time for each", 1e3 * (time.process_time() - own) / count, "ms")
        row.check("embeddings that are not the constant", (dataset.batch(range(8))["embedding"] != constant).sum(), 0)
    row.notes.append("The backbone answers at once: the rate is what its pictures and embeddings allow.")
    return row


def _answer_at_once(dataset: EmbeddingDataset, side: int, settings: Settings) -> Tensor:
    """Make the data set's backbone give the same embeddings for whatever it gets; one image's, half ``[C,h,w]``.

    They are in half precision already: a GPU rounds them before the host sees them.
    """
    backbone = dataset.backbone
    grid = side // backbone.patch_size
    one = torch.randn(backbone.embed_dim, grid, grid).half().to(settings.device)
    backbone.forward = lambda images: (one.expand(len(images), -1, -1, -1), one[:, 0, 0].expand(len(images), -1))
    return one.cpu()
