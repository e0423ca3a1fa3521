"""AnomalyDINO (Damm et al., WACV 2025): cosine distance of a patch to its nearest in a bank of normal patches."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad import parallel
from dino_uad.heads.anomaly_dino.coreset import greedy_coreset
from dino_uad.heads.anomaly_dino.faiss_index import FaissIndex
from dino_uad.heads.anomaly_dino.in_step import take_part
from dino_uad.heads.anomaly_dino.nearest import encode_rows, nearest_neighbours, nearest_neighbours_sharded
from dino_uad.heads.anomaly_dino.part import Part
from dino_uad.heads.anomaly_dino.pca_mask import pca_foreground, warn_short
from dino_uad.heads.anomaly_dino.references import References
from dino_uad.heads.anomaly_dino.retrieval import (
    mean_distance,
    most_similar,
    patch_rows,
    retrieved_distances,
    sharded_distances,
    traced_distances,
)
from dino_uad.heads.head import Head
from dino_uad.heads.masking import fill_background, nonempty_mask
from dino_uad.settings import require_choice, require_count, require_number
from dino_uad.tracing import is_traced


class AnomalyDinoHead(Head):
    """Score a patch by the mean cosine distance to its nearest normal patches.

    The bank takes two bytes a component (:mod:`dino_uad.heads.anomaly_dino.nearest`), image after image.

    Args:
        embed_dim: number of channels ``C``.
        shots: number of reference images; all when None. They are drawn from the seed, and fewer shots with the same
            seed are a subset of more.
        k_neighbors: number of nearest patches to average over, or all that there are; the paper uses 1.
        retrieve: number of normal images, the most similar ones by class token, whose patches are searched; all when
            None, as published.
        coreset: share of the bank that greedy k-centre selection keeps, in (0, 1]; all when None.
        foreground: ``pca`` restricts references and queries to the foreground by their first principal component.
        views: consecutive images of the stream that show one reference, 8 for its rotations by multiples of 45°.
        seed: of the drawn references and of the coreset.
        sharded: under ``torch.distributed`` every rank keeps only its part of the bank, of a fit and of a model that is
            loaded, and all search together.
        index: ``faiss`` searches approximately (:mod:`dino_uad.heads.anomaly_dino.faiss_index`), for banks of millions
            of rows; an exported model searches exactly all the same.
    """

    title = "AnomalyDINO"
    dynamic_buffers = ("bank", "ends", "class_tokens")
    decides = ("foreground", "k_neighbors", "retrieve")
    single_pass = True

    def __init__(
        self,
        embed_dim: int,
        shots: int | None = None,
        k_neighbors: int = 1,
        retrieve: int | None = None,
        coreset: float | None = None,
        foreground: Literal["pca"] | None = None,
        views: int = 1,
        seed: int = 0,
        sharded: bool = False,
        index: Literal["exact", "faiss"] = "exact",
    ) -> None:
        super().__init__(embed_dim)
        require_choice("index", index, ("exact", "faiss"))
        require_choice("foreground", foreground, (None, "pca"))
        require_count("k_neighbors", k_neighbors)
        require_count("views", views)
        for name, count in (("shots", shots), ("retrieve", retrieve)):
            if count is not None:
                require_count(name, count)
        if coreset is not None:
            require_number("coreset", coreset, 0, 1, ends="(]")
        if sharded and index == "faiss":
            raise ValueError("a bank with a faiss index is searched whole: choose sharded or index 'faiss'")
        if retrieve is not None and index != "exact":
            raise ValueError(f"index {index!r} searches the whole bank, retrieve {retrieve} images of it: choose one")
        self.shots, self.k_neighbors, self.retrieve, self.coreset = shots, k_neighbors, retrieve, coreset
        self.foreground, self.views, self.seed, self.sharded, self.index = foreground, views, seed, sharded, index
        self.register_buffer("bank", torch.empty(0, embed_dim, dtype=torch.int16))
        self.register_buffer("ends", torch.empty(0, dtype=torch.int64))
        self.register_buffer("class_tokens", torch.empty(0, embed_dim, dtype=torch.float16))
        self.approximate = FaissIndex(embed_dim) if index == "faiss" else None
        self._part: Part | None = None
        self._restart()

    @property
    def fitted(self) -> bool:
        return self._part is not None or self.bank.numel() > 0

    @property
    def divided(self) -> bool:
        """Whether this process holds only a part of the bank; all processes then score together."""
        return self._part is not None

    def fit_batch(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> dict[str, float]:
        """Collect the foreground patches of each image, in the order of the joined batches.

        Every rank gets those of all, or, with ``sharded``, keeps those of its own images.
        """
        if self.foreground == "pca" and not self._references.kept:
            warn_short(embeddings)
        mask = nonempty_mask(self._foreground(embeddings, mask), embeddings)[:, 0]
        rows = encode_rows(embeddings.movedim(1, -1)[mask])
        images = parallel.counts(len(embeddings), embeddings.device)
        counts = parallel.gather_rows(mask.sum(dim=(1, 2))).tolist()
        tokens = parallel.gather_rows(functional.normalize(self._class_token(cls, embeddings).float(), dim=1)).half()
        mine = parallel.own_place(images) if self._divides else slice(0, sum(images))
        rows = rows if self._divides else parallel.gather_rows(rows)
        parts = iter(rows.split(counts[mine]))
        for i, (count, token) in enumerate(zip(counts, tokens, strict=True)):
            self._references.add(next(parts) if mine.start <= i < mine.stop else None, count, token)
        return {"bank_rows": float(self._references.row_count)}

    def end_epoch(self) -> None:
        """Make what was collected the bank; a second pass over the data replaces the first."""
        if not self._references.kept:
            raise RuntimeError("AnomalyDINO was given no normal image: check the training data list")
        here = torch.tensor([one.rows is not None for one in self._references.kept])
        self.class_tokens = torch.stack([one.token for one in self._references.kept])
        self.bank = self._references.join_rows(self.bank)
        self.ends = torch.tensor([one.count for one in self._references.kept], device=self.bank.device).cumsum(0)
        self._part = Part.of_images(self.ends, here) if self._divides else None
        self._restart()
        if self.coreset is not None:
            self._select(max(1, int(self.coreset * int(self.ends[-1]))))
        if self._part is not None:
            self.ends = self._part.local_ends
        if self.approximate is not None:
            self.approximate.build(self.bank)

    def _select(self, count: int) -> None:
        """Keep the coreset of ``count`` rows, in their order; all ranks select together."""
        numbers = None if self._part is None else self._part.numbers
        chosen = greedy_coreset(self.bank, count, self.seed, parallel.rank() == 0, numbers).sort().values
        if self._part is None:
            self.bank, self.ends = self.bank[chosen], torch.searchsorted(chosen, self.ends)
        else:
            kept, self._part = self._part.of_selected(chosen)
            self.bank = self.bank[kept]

    def score(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Cosine distance of every patch in [0, 2]; masked patches get the lowest score of their image's foreground.

        The published code gives masked patches 0, which smoothing then carries into the foreground.
        """
        if not self.fitted:
            raise RuntimeError("AnomalyDINO is not fitted: run train first or load models/model.pt")
        if self.divided:
            take_part(tuple(embeddings.shape[-2:]) if len(embeddings) else None, embeddings.device)
        return self._score(embeddings, cls, mask)

    def end_scoring(self) -> None:
        """Search this rank's part of the bank for the others, until they have no more images either."""
        while self.divided and (grid := take_part(None, self.bank.device)):
            nothing = torch.empty(0, self.embed_dim, *grid, device=self.bank.device)
            self._score(nothing, nothing[:, :, 0, 0], None)

    def _score(self, embeddings: Tensor, cls: Tensor | None, mask: Tensor | None) -> Tensor:
        foreground = self._foreground(embeddings, mask)
        if self.retrieve is not None:
            distance = self._retrieved(embeddings, self._class_token(cls, embeddings), foreground)
            return fill_background(mean_distance(distance).view(-1, 1, *embeddings.shape[-2:]), foreground)
        queries = patch_rows(embeddings).flatten(0, 1)
        if self.approximate is not None and not is_traced():
            distance = self.approximate.search(queries, self.bank, self.k_neighbors)
        elif self.divided:
            distance = nearest_neighbours_sharded(queries, self.bank, self.k_neighbors)
        else:
            distance = nearest_neighbours(queries, self.bank, self.k_neighbors)[0]
        scores = distance.mean(dim=-1).view(-1, 1, *embeddings.shape[-2:])
        return fill_background(scores, foreground)

    def _retrieved(self, embeddings: Tensor, cls: Tensor, foreground: Tensor | None) -> Tensor:
        """``[B,P,k]`` distances to the patches of the most similar normal images; 0 outside of the foreground.

        Infinite beyond the rows that those of the image itself have, whatever is retrieved for the rest of the batch.
        """
        if len(self.class_tokens) != len(self.ends) or not len(self.ends):
            raise RuntimeError(
                "the bank holds no class tokens to retrieve images by: fit again, or set retrieve to null"
            )
        images = self._most_similar(cls)
        queries = patch_rows(embeddings)
        if is_traced():
            longest = queries.shape[1] * self.views
            return traced_distances(queries, images, self.bank, self.ends, self.k_neighbors, longest)
        wanted = nonempty_mask(foreground, embeddings).flatten(1)
        if self.divided:
            return sharded_distances(queries, wanted, images, self.bank, self.ends, self.k_neighbors, self._part.here)
        return retrieved_distances(queries, wanted, images, self.bank, self.ends, self.k_neighbors)

    def _most_similar(self, cls: Tensor) -> Tensor:
        ends = self.ends if self._part is None else self._part.ends.to(self.ends.device)
        return most_similar(cls, self.class_tokens, self.retrieve, ends)

    def nearest(self, query: Tensor, cls: Tensor | None = None) -> tuple[float, int]:
        """Distance and bank row of the nearest patch to one ``[C]`` of an image with class token ``[C]``."""
        rows = torch.arange(len(self.bank), device=self.bank.device)
        if self.retrieve is not None:
            images = self._most_similar(cls[None])[0]
            rows = rows[torch.isin(torch.searchsorted(self.ends, rows, right=True), images)]
        distance, index = nearest_neighbours(query[None], self.bank[rows])
        return float(distance[0, 0]), int(rows[index[0, 0]])

    @property
    def _divides(self) -> bool:
        return self.sharded and parallel.world_size() > 1

    def _restart(self) -> None:
        self._references = References(self.shots, self.views, self.seed)

    def _class_token(self, cls: Tensor | None, embeddings: Tensor) -> Tensor:
        if cls is None and self.retrieve is not None:
            raise ValueError("AnomalyDINO retrieves by class tokens and found none: the batch needs 'cls', [B,C]")
        return embeddings.new_zeros(embeddings.shape[:2]) if cls is None else cls

    def _foreground(self, embeddings: Tensor, mask: Tensor | None) -> Tensor | None:
        if self.foreground is None:
            return mask
        found = pca_foreground(embeddings)
        return found if mask is None else found & mask

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        for name in ("ends", "class_tokens"):  # a bank of version 0.1 can only be searched as a whole
            state_dict.setdefault(prefix + name, getattr(self, name)[:0])
        self._part = None
        if self._divides and prefix + "bank" in state_dict:  # of a mapped file no more than this part is read
            bank, ends = state_dict[prefix + "bank"], state_dict[prefix + "ends"]
            self._part = Part.of_rank(ends, len(bank))
            state_dict[prefix + "bank"] = bank[self._part.numbers.to(bank.device)]
            state_dict[prefix + "ends"] = self._part.local_ends
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._part is not None:
            whole = self._part.whole(self.bank)
            destination[prefix + "bank"] = self.bank if whole is None else whole
            destination[prefix + "ends"] = self._part.ends
