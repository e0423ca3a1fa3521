"""The frozen backbone over images as they are loaded: on a GPU, loading, copying and computing at the same time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from dino_uad import parallel
from dino_uad.backbones import DinoBackbone
from dino_uad.data import files_per_batch, stack_images
from dino_uad.embeddings.loading import load_slices
from dino_uad.embeddings.shard import Record
from dino_uad.embeddings.slices import Loaded, Slices
from dino_uad.transforms import to_patches

logger = logging.getLogger(__name__)

_IMAGES = 8  # at a time
_PATCHES_ON_A_GPU = 1 << 15  # at a time: starting the kernels of 8 images takes the host as long as those of 32


class Embedder:
    """Runs the backbone on slices of entries, in batches that may span entries.

    Processes load images, several at a time, for a GPU a thread brings them to pinned memory, and a batch is fetched
    from the device when the next one is on its way there.

    Args:
        backbone: the frozen feature extractor.
        device: where it runs.
        batch_size: images per call; None is 8, and on a GPU as many as have 32 768 patches.
        num_workers: processes that load images meanwhile.
    """

    def __init__(self, backbone: DinoBackbone, device: torch.device, batch_size: int | None, num_workers: int) -> None:
        self.backbone, self.device = backbone, device
        self.batch_size, self.num_workers = batch_size, num_workers

    def __call__(self, slices: Slices) -> Iterator[Record | None]:
        """Yield the record of each entry in turn, on the CPU, empty if it has no slice, None if it was skipped.

        Raises:
            ValueError: an embedding is not a number.
        """
        self.backbone.to(self.device)
        waiting: list[Loaded] = []
        running: list[int | None] = []
        results: Record = {}
        for loaded in self._loaded(slices):
            waiting.append(loaded)
            if sum(map(_number, waiting)) >= self.images_a_call(waiting):
                started = self._start(waiting)
                yield from _fetch(running, results)
                running, results = _counts(waiting), started
                waiting = []
        yield from _fetch(running, results)
        yield from _fetch(_counts(waiting), self._start(waiting))

    def images_a_call(self, waiting: Sequence[Loaded]) -> int:
        """How many of these slices the backbone is given at a time."""
        images = [part.slices["image"] for part in waiting if part.slices]
        if self.batch_size is not None or self.device.type != "cuda" or not images:
            return self.batch_size or _IMAGES
        return max(_IMAGES, _PATCHES_ON_A_GPU * self.backbone.patch_size**2 // images[0].shape[-2:].numel())

    def _loaded(self, slices: Slices) -> Iterator[Loaded]:
        """The slices of entries as workers load them, with a progress bar and a word on what was skipped."""
        files = files_per_batch(slices.data, self.batch_size or _IMAGES)
        skipped: Counter[str] = Counter()
        with tqdm(total=len(slices), desc="embedding", unit="file", disable=parallel.rank() > 0) as bar:
            for loaded in load_slices(slices, self.num_workers, files, pin_memory=self.device.type == "cuda"):
                skipped.update(loaded.problems)
                yield loaded
                bar.update(len(loaded.counts))
        if skipped:
            logger.warning(f"skipped {skipped.total()} unreadable of {len(slices)}: " + "; ".join(skipped))

    @torch.inference_mode()
    def _start(self, waiting: Sequence[Loaded]) -> Record:
        """Start the backbone on all slices of some entries; joined, on the device, empty without a slice."""
        images, masks = (
            [one for part in waiting for one in part.slices.get(key, ())] for key in ("image", "foreground")
        )
        size = self.images_a_call(waiting)
        starts = range(0, len(images), size)
        done = [self._forward(images[start : start + size], masks[start : start + size]) for start in starts]
        return done[0] if len(done) == 1 else _joined(done)

    def _forward(self, images: Sequence[Tensor], masks: Sequence[Tensor]) -> Record:
        batch = stack_images([image.to(self.device, torch.float32, non_blocking=True) for image in images])
        embeddings, cls = self.backbone(batch)
        record = {"embedding": embeddings.half().contiguous(), "cls": cls.float()}
        if masks:
            record["foreground"] = to_patches(torch.stack(list(masks)), tuple(embeddings.shape[-2:])).bool()
        return record


def _joined(parts: Sequence[Record]) -> Record:
    return {key: torch.cat([part[key] for part in parts]) for key in (parts[0] if parts else ())}


def _number(loaded: Loaded) -> int:
    return sum(count or 0 for count in loaded.counts)


def _counts(parts: Sequence[Loaded]) -> list[int | None]:
    return [count for part in parts for count in part.counts]


def _fetch(counts: Sequence[int | None], results: Record) -> Iterator[Record | None]:
    """The records of entries, of which the numbers of slices are given, from the device."""
    if results and not torch.stack(results["embedding"].aminmax()).isfinite().all():
        raise ValueError("the backbone gave NaN or Inf, or a value beyond half precision; check the image values")
    results = {key: value.cpu() for key, value in results.items()}
    start = 0
    for count in counts:
        stop = start + (count or 0)
        yield {key: value[start:stop] for key, value in results.items()} if count else None if count is None else {}
        start = stop
