"""The frozen backbone runs once per image: a data set of patch embeddings, kept in half precision."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from torch.utils.data import Dataset
from tqdm import tqdm

from dino_uad import parallel
from dino_uad.ahead import ahead
from dino_uad.backbones import DinoBackbone
from dino_uad.detector import Foreground
from dino_uad.digests import digest_facts
from dino_uad.embeddings.embed import Embedder
from dino_uad.embeddings.hold_out import hold_out
from dino_uad.embeddings.identity import Identity, identify, store_facts
from dino_uad.embeddings.shard import Record
from dino_uad.embeddings.slices import Slices
from dino_uad.embeddings.store import EmbeddingStore, MemoryStore, Place
from dino_uad.embeddings.unchanged import is_changed
from dino_uad.embeddings.with_foreground import WithForeground
from dino_uad.settings import require_choice, require_count, require_number
from dino_uad.unequal_work import unequal_work

logger = logging.getLogger(__name__)


class EmbeddingDataset(Dataset):
    """Slices of a data list as ``{"embedding": [C,h,w] half, "cls": [C], "foreground": [1,h,w] bool (if made)}``.

    The transform turns one entry of ``data`` into one image dictionary or, for a volume, into a list of slices. The
    backbone runs when the data set is first measured or indexed, in batches that may span entries. With a ``cache_dir``
    the embeddings go to files there (:class:`~dino_uad.embeddings.store.EmbeddingStore`), from which a batch is read
    when it is asked for: the resident memory does not depend on the number of images, and a second run, or one that was
    killed, goes on where the first stopped. Under ``torch.distributed`` the ranks divide the entries among them.

    Args:
        data: dictionaries with an ``image`` path and optionally a ``label`` path.
        transform: MONAI transform from paths to ``image`` ``[1|3,H,W]`` in [0, 1], and ``foreground`` ``[1,H,W]``.
        backbone: the frozen feature extractor.
        cache_dir: folder of the files; None keeps the embeddings in memory, each rank all of them.
        batch_size: images per backbone call; None is 8, and on a GPU as many as have 32 768 patches.
        num_workers: processes that load images meanwhile.
        on_error: ``"raise"``, or ``"skip"`` to leave out unreadable entries with a warning that names them.
        device: where the backbone runs.
        held_out: share of the entries that is set aside for a data set which names this one as ``stand_in``.
        stand_in: whose set-aside slices this data set takes where ``data`` is empty, with a warning: MONAI Label
            gives no validation images for one or two labelled ones.
        foreground: the detector's, by which slices get theirs; None, or where it leaves nothing out, stores none but
            what the transform makes.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable,
        backbone: DinoBackbone,
        cache_dir: str | None = None,
        batch_size: int | None = None,
        num_workers: int = 0,
        on_error: str = "raise",
        device: torch.device | str = "cpu",
        held_out: float = 0.0,
        stand_in: EmbeddingDataset | None = None,
        foreground: Foreground | None = None,
    ) -> None:
        require_choice("on_error", on_error, ("raise", "skip"))
        if batch_size is not None:
            require_count("batch_size", batch_size)
        require_number("held_out", held_out, 0, 1, ends="[)")
        self.data = list(data)
        if type(transform) is Compose:
            transform = transform.flatten()  # the same steps have the same store, however they are nested
        if foreground is not None and foreground.mode != "none":
            transform = WithForeground(transform, foreground, backbone.patch_size)
        self.transform = transform
        self.backbone = backbone
        self.cache_dir = Path(cache_dir) if cache_dir else None
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_error = on_error
        self.device = torch.device(device)
        self.held_out = held_out
        self.stand_in = stand_in
        self._store: EmbeddingStore | MemoryStore | None = None
        self._shards: list[str] = []
        self._index = self._aside = np.empty((0, 3), dtype=np.int64)
        self._images = np.empty(0, dtype=np.int64)
        self._identified: dict[int, Identity] = {}
        self._identity = ""

    def __len__(self) -> int:
        self.build()
        return len(self._index)

    def __getitem__(self, item: int) -> Record:
        return {key: value[0] for key, value in self.batch([item]).items()}

    def batch(self, items: Sequence[int]) -> Record:
        """Stack the given slices to ``[B,...]``, with their ``item`` numbers; without items every ``B`` is 0."""
        self.build()
        if not len(items):
            return {key: value[:0] for key, value in self.batch([0]).items()}
        rows = self._store.read([(self._shards[shard], row) for _, shard, row in self._index[list(items)].tolist()])
        return rows | {"item": torch.tensor(items, dtype=torch.int64)}

    def pinned(self, items: Sequence[int]) -> Record:
        """:meth:`batch` in pinned memory, from which a GPU copies while its kernels run."""
        return {key: value.pin_memory() for key, value in self.batch(items).items()}

    @property
    def identity(self) -> str:
        """Digest of what the slices are made from: bytes of files, settings, weights, code, and what is set aside."""
        self.build()
        return self._identity

    @property
    def images(self) -> torch.Tensor:
        """Eight bytes ``[n]`` int64 (``Identity.image``) of each image that has slices here."""
        self.build()
        return torch.from_numpy(np.unique(self._images[self._index[:, 0]]))

    @property
    def entries(self) -> list[Mapping[str, Any]]:
        """The data list, or that of the data set that stands in for an empty one."""
        return self.data or (self.stand_in.data if self.stand_in is not None else [])

    def entry(self, item: int) -> Mapping[str, Any]:
        """Entry of the data list that slice ``item`` was made from."""
        return self.entries[self.scan(item)]

    def scan(self, item: int) -> int:
        """Number of the entry that slice ``item`` was made from: the slices of a volume share it, pictures do not."""
        self.build()
        return int(self._index[item, 0])

    def group(self, item: int) -> str:
        """Group of slice ``item``: the entry's ``group`` (patient) or, without one, its file."""
        entry = self.entry(item)
        return str(entry.get("group", entry.get("image")))

    def build(self) -> None:
        """Embed what the cache does not hold; does nothing the second time."""
        if self._store is not None:
            return
        if not self.data and self.stand_in is not None:
            self._take_over(self.stand_in)
            return
        if not self.data:
            raise ValueError("the data list is empty: no image to embed; check dataset_dir and the split")
        store, keys = self._open()
        places = store.find(keys)
        with unequal_work() as meet:
            mine = self._embed_missing(store, keys, places)
            meet()
        skipped = self._find_embedded(store, keys, places, mine)
        self._require_all(keys, places, skipped)
        self._index_slices(keys, places)
        self._store = store

    def _open(self) -> tuple[EmbeddingStore | MemoryStore, list[str]]:
        """Where embeddings are, and the entries' keys there; each rank looks at the files of its share."""
        facts = store_facts(self.transform, self.backbone)
        store = EmbeddingStore(self.cache_dir, facts) if self.cache_dir else MemoryStore()
        share = parallel.share(self.data)
        progress = {"desc": "looking for embeddings", "unit": "file", "disable": None, "leave": False}
        with unequal_work() as meet:
            mine = list(tqdm(ahead(identify, share), total=len(share), **progress))
            meet()
        # Of the rank's own share, which it will embed: other ranks may see other times and numbers of the same files.
        self._identified = dict(zip(parallel.share(range(len(self.data))), mine, strict=True))
        known = parallel.join_shares([(one.key, one.image) for one in mine])
        keys, self._images = [key for key, _ in known], np.array([image for _, image in known], dtype=np.int64)
        self._identity = digest_facts([facts, keys, self.held_out])
        return store, keys

    def _embed_missing(
        self, store: EmbeddingStore | MemoryStore, keys: Sequence[str], places: dict[str, Place]
    ) -> list[str]:
        """Embed this rank's share of what was not found; returns the keys of what was skipped."""
        missing = {key: entry for entry, key in reversed([*enumerate(keys)]) if key not in places}
        skipped: list[str] = []
        if missing:
            store.prepare()
            # By the entry's number, not by its place among the missing: a rank that looks later misses fewer.
            share = 1 if self.cache_dir is None else parallel.world_size()
            mine = sorted(entry for entry in missing.values() if entry % share == parallel.rank() % share)
            embed = Embedder(self.backbone, self.device, self.batch_size, self.num_workers)
            told = False
            for entry, record in zip(mine, embed(self.slices(mine)), strict=True):
                if record and not told:
                    self._announce(len(missing), record)
                    told = True
                if record is None or is_changed(self.data[entry], self._identified.get(entry), self.on_error):
                    skipped.append(keys[entry])
                else:
                    store.append(keys[entry], record)
            store.flush()
        return skipped

    def _find_embedded(
        self, store: EmbeddingStore | MemoryStore, keys: Sequence[str], places: dict[str, Place], skipped: list[str]
    ) -> set[str]:
        """Find what all ranks have embedded; returns the keys of what one of them skipped."""
        everyones = [skipped] if self.cache_dir is None else parallel.gather_objects(skipped)
        places.update(store.find(key for key in keys if key not in places))
        return {key for one in everyones for key in one}

    def _require_all(self, keys: Sequence[str], places: Mapping[str, Place], skipped: set[str]) -> None:
        lost = [entry for entry, key in zip(self.data, keys, strict=True) if key not in places and key not in skipped]
        if lost:
            raise RuntimeError(
                f"{len(lost)} of {len(keys)} embeddings are not in {self.cache_dir} after all ranks have written "
                f"theirs, the first that of {lost[0]['image']}: cache_dir must be one folder that every rank can read"
            )

    def _index_slices(self, keys: Sequence[str], places: Mapping[str, Place]) -> None:
        """For each slice the entry, the number of its shard, and its row there."""
        found = [(entry, places[key]) for entry, key in enumerate(keys) if key in places]
        self._shards = sorted({place.shard for _, place in found})
        number = {shard: i for i, shard in enumerate(self._shards)}
        counts = np.array([place.count for _, place in found], dtype=np.int64)
        if not counts.sum():
            raise ValueError(f"none of the {len(self.data)} entries gave an image; see the warnings above")
        firsts = np.array([(entry, number[place.shard], place.start) for entry, place in found]).repeat(counts, axis=0)
        firsts[:, 2] += np.arange(counts.sum()) - (counts.cumsum() - counts).repeat(counts)
        aside = hold_out(firsts[:, 0], self.held_out)
        self._index, self._aside = firsts[~aside], firsts[aside]

    def _take_over(self, other: EmbeddingDataset) -> None:
        other.build()
        self._store, self._shards, self._index = other._store, other._shards, other._aside
        self._images = other._images
        self._identity = digest_facts(["set aside", other._identity])
        logger.warning(
            f"no validation images were given: {len(self._index)} of the {len(self._index) + len(other)} normal slices "
            "are taken from the training images to choose the epoch and calibrate thresholds; more images would make "
            "the false positive rates more certain"
        )

    def _announce(self, count: int, record: Record) -> None:
        """Say how large the embeddings will be, once the first of them tells."""
        size = record["embedding"][0].nbytes / 1e6
        logger.info(
            f"embedding {count} of {len(self.data)} entries with {self.backbone.arch}; a slice takes {size:.2g} MB in "
            f"half precision, so at least {count * size:.0f} MB "
            + (f"in {self.cache_dir.name}/" if self.cache_dir else "in memory")
        )

    def slices(self, entries: Sequence[int] | None = None) -> Slices:
        """The images themselves, of all entries or of some."""
        chosen = self.data if entries is None else [self.data[entry] for entry in entries]
        return Slices(chosen, self.transform, self.on_error)
