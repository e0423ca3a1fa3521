"""The frozen backbone runs once per image: a data set of patch embeddings, cached in half precision."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dino_uad import parallel
from dino_uad.backbones import DinoBackbone
from dino_uad.data import stack_images
from dino_uad.embeddings.cache import EmbeddingCache
from dino_uad.embeddings.hold_out import Slice, hold_out
from dino_uad.errors import explain
from dino_uad.transforms import to_patches

logger = logging.getLogger(__name__)

Record = dict[str, Tensor]


class EmbeddingDataset(Dataset):
    """Slices of a data list as ``{"embedding": [C,h,w] half, "cls": [C], "foreground": [1,h,w] bool (if made)}``.

    The transform turns one entry of ``data`` into one image dictionary or, for a volume, into a list of slices. Each
    entry becomes one record; the backbone runs when the data set is first measured or indexed, in batches that may span
    entries. With a ``cache_dir`` a record is also a file, keyed by the bytes of the entry's files, the transform, and
    the backbone with its weights, so that a second run, or a run that was killed, goes on where it stopped.
    Under ``torch.distributed`` with a shared ``cache_dir`` the ranks divide the entries.

    Args:
        data: dictionaries with an ``image`` path and optionally a ``label`` path.
        transform: MONAI transform from paths to ``image`` ``[1|3,H,W]`` in [0, 1], and ``foreground`` ``[1,H,W]``.
        backbone: the frozen feature extractor.
        cache_dir: folder of the cache files; None keeps the embeddings in memory only.
        batch_size: images per backbone call.
        num_workers: processes that load images meanwhile.
        on_error: ``"raise"``, or ``"skip"`` to leave out unreadable entries with a warning that names them.
        device: where the backbone runs.
        held_out: share of the entries that is set aside for a data set which names this one as ``stand_in``.
        stand_in: whose set-aside slices this data set takes where ``data`` is empty, with a warning: MONAI Label
            gives no validation images for one or two labelled ones.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable,
        backbone: DinoBackbone,
        cache_dir: str | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        on_error: str = "raise",
        device: torch.device | str = "cpu",
        held_out: float = 0.0,
        stand_in: EmbeddingDataset | None = None,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}; expected 'raise' or 'skip'")
        self.data = list(data)
        self.transform = transform
        self.backbone = backbone
        self.cache = EmbeddingCache(cache_dir, transform, backbone) if cache_dir else None
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_error = on_error
        self.device = torch.device(device)
        self.held_out = held_out
        self.stand_in = stand_in
        self._records: list[Record] | None = None
        self._index: list[Slice] = []
        self._aside: list[Slice] = []

    def __len__(self) -> int:
        self.build()
        return len(self._index)

    def __getitem__(self, item: int) -> Record:
        self.build()
        record, position = self._index[item]
        return {key: value[position] for key, value in self._records[record].items()}

    def batch(self, items: Sequence[int]) -> Record:
        """Stack the given slices to ``[B,...]``; with no items every tensor has ``B = 0``."""
        if len(items):
            rows = [self[item] for item in items]
            return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        self.build()
        return {key: value[:0] for key, value in self._records[0].items()}

    def build(self) -> None:
        """Embed what the cache does not hold; does nothing the second time."""
        if self._records is not None:
            return
        if not self.data and self.stand_in is not None:
            self._take_over(self.stand_in)
            return
        if not self.data:
            raise ValueError("the data list is empty: no image to embed; check dataset_dir and the split")
        paths = [self.cache.path(entry) for entry in self.data] if self.cache else []
        records = [self.cache.load(path) for path in paths] or [None] * len(self.data)
        missing = [i for i, record in enumerate(records) if record is None]
        if missing:
            self._announce(len(missing))
            # By the entry's number, not by its place among the missing: a rank that looks later misses fewer.
            share = parallel.world_size() if self.cache else 1
            for i, record in self._embed([i for i in missing if i % share == parallel.rank() % share]):
                records[i] = record
                if self.cache:
                    self.cache.save(record, paths[i])
        if parallel.is_distributed() and self.cache:
            dist.barrier()
            pairs = zip(records, paths, strict=True)
            records = [self.cache.load(path) if record is None else record for record, path in pairs]
            self._require_all(records)
        self._records = [record for record in records if record is not None and len(record["cls"])]
        if not self._records:
            raise ValueError(f"none of the {len(self.data)} entries gave an image; see the warnings above")
        slices = [(r, s) for r, record in enumerate(self._records) for s in range(len(record["cls"]))]
        self._index, self._aside = hold_out(slices, self.held_out)

    def _require_all(self, records: Sequence[Record | None]) -> None:
        lost = [entry["image"] for entry, record in zip(self.data, records, strict=True) if record is None]
        if lost:
            raise RuntimeError(
                f"{len(lost)} of {len(records)} embeddings are not in {self.cache.folder} after all ranks have written "
                f"theirs, the first that of {lost[0]}: cache_dir must be one folder that every rank can read"
            )

    def _take_over(self, other: EmbeddingDataset) -> None:
        other.build()
        self._records, self._index = other._records, other._aside
        logger.warning(
            f"no validation images were given: {len(self._index)} of the {len(self._index) + len(other)} normal slices "
            "are taken from the training images to choose the epoch and calibrate thresholds; more images would make "
            "the false positive rates more certain"
        )

    def _announce(self, count: int) -> None:
        channels, patch = self.backbone.embed_dim, self.backbone.patch_size
        logger.info(
            f"embedding {count} of {len(self.data)} entries with {self.backbone.arch}; a 448 px slice takes "
            f"{channels * (448 // patch) ** 2 * 2 / 1e6:.1f} MB in half precision, so at least "
            f"{count * channels * (448 // patch) ** 2 * 2 / 1e6:.0f} MB "
            + (f"in {self.cache.folder.name}/ and in memory" if self.cache else "in memory")
        )

    def _embed(self, entries: Sequence[int]) -> Iterator[tuple[int, Record]]:
        """Yield ``(entry, record)``, running the backbone on full batches that may span entries."""
        loader = DataLoader(
            _Slices(self, entries), batch_size=None, num_workers=self.num_workers, collate_fn=_unchanged
        )
        waiting: list[tuple[int, list[dict[str, Tensor]]]] = []
        skipped: Counter[str] = Counter()
        with tqdm(total=len(entries), desc="embedding", unit="file", disable=parallel.rank() > 0) as bar:
            for entry, slices, problem in loader:
                if problem is not None:
                    skipped[problem] += 1
                waiting.append((entry, slices))
                if sum(len(s) for _, s in waiting) >= self.batch_size:
                    yield from self._flush(waiting)
                    waiting = []
                bar.update()
            yield from self._flush(waiting)
        if skipped:
            logger.warning(f"skipped {skipped.total()} unreadable of {len(entries)}: " + "; ".join(skipped))

    def slices(self, index: int) -> tuple[int, list[dict[str, Tensor]], str | None]:
        """Transform one entry: its index, its slices, and why there are none if it was skipped."""
        entry = self.data[index]
        try:
            slices = self.transform(dict(entry))
        except Exception as error:
            if self.on_error == "raise":
                raise
            return index, [], f"{Path(str(entry.get('image'))).name}: {explain(error)}"
        slices = list(_flattened(slices))
        keep = ("image", "foreground")
        plain = [{k: torch.as_tensor(s[k]).as_subclass(Tensor) for k in keep if k in s} for s in slices]
        return index, plain, None

    @torch.inference_mode()
    def _flush(self, waiting: list[tuple[int, list[dict[str, Tensor]]]]) -> Iterator[tuple[int, Record]]:
        slices = [s for _, group in waiting for s in group]
        merged: Record = {}
        if slices:
            done = [self._forward(slices[i : i + self.batch_size]) for i in range(0, len(slices), self.batch_size)]
            merged = {key: torch.cat([part[key] for part in done]) for key in done[0]}
        start = 0
        for entry, group in waiting:
            stop = start + len(group)
            yield (
                entry,
                {key: value[start:stop].clone(memory_format=torch.contiguous_format) for key, value in merged.items()}
                if group
                else _EMPTY,
            )
            start = stop

    def _forward(self, slices: list[dict[str, Tensor]]) -> Record:
        backbone = self.backbone.to(self.device)
        embeddings, cls = backbone(stack_images([s["image"] for s in slices]).to(self.device, torch.float32))
        record = {"embedding": embeddings.half().contiguous().cpu(), "cls": cls.float().cpu()}
        if "foreground" in slices[0]:
            masks = torch.stack([s["foreground"] for s in slices])
            record["foreground"] = to_patches(masks, tuple(embeddings.shape[-2:])).bool().cpu()
        if not record["embedding"].isfinite().all():
            raise ValueError("the backbone gave NaN or Inf, or a value beyond half precision; check the image values")
        return record


class _Slices(Dataset):
    """The entries that are still to embed, for the workers of a ``DataLoader``."""

    def __init__(self, owner: EmbeddingDataset, entries: Sequence[int]) -> None:
        self.owner = owner
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, item: int) -> tuple[int, list[dict[str, Tensor]], str | None]:
        return self.owner.slices(self.entries[item])


def _flattened(slices: Any) -> Iterator[dict[str, Any]]:
    """What a transform made of one entry: a dictionary, or lists of them (the views of the slices of a volume)."""
    if isinstance(slices, list):
        for part in slices:
            yield from _flattened(part)
    else:
        yield slices


def _unchanged(item: Any) -> Any:
    return item


_EMPTY: Record = {"embedding": torch.empty(0, dtype=torch.half), "cls": torch.empty(0)}
