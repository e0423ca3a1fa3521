"""Log densities of many rows under many diagonal Gaussians, of which few matter to any row.

``diagonal_terms`` expands the Mahalanobis term into two matrix products around a common centre. Two things are added
for the E step of the DPMM, where a density so low that its responsibility underflows need not be known:

* An image uses few components. Where the processor multiplies bfloat16 several times faster than float32, a product in
  bfloat16, whose error has a bound, finds those that a chunk of rows can use; only they are computed.
* In components so narrow that float32 would lose accuracy in the expansion ("sharp"), float64 is used for the rows near
  one of them.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dino_uad.heads.dpmm.gaussian import UNDERFLOW, Components, diagonal_products, diagonal_terms
from dino_uad.processor import fast_bfloat16
from dino_uad.products import linear, recurring

# Σ_d (μ−c)²/σ² above which the expanded Mahalanobis term may be off by more than 1e-3 in float32.
SHARP = 1e-3 / torch.finfo(torch.float32).eps
ROWS, COLUMNS = 128, 32
"""Rows and components by which the products grow (:func:`~dino_uad.products.recurring`)."""
_FEWEST = 64  # components below which a first product in bfloat16 saves nothing


class ChunkDensities(NamedTuple):
    """Densities of one chunk of ``n`` rows; the next call overwrites ``factors``.

    The responsibilities of components that are not listed underflow in every row, as do those given as -inf.
    """

    joint: Tensor  # [n,m]: log joint densities
    numbers: Tensor  # [m]: the components they belong to
    first_sharp: int  # place in ``numbers`` of the first sharp one; all after it are
    factors: Tensor  # [n + ROWS or more,2D]: rows less the centre, and their squares; then any finite numbers


class Densities:
    """Log joint densities of chunks of rows under ``components``, diagonal covariances ``[K,D]``."""

    def __init__(self, components: Components) -> None:
        center = components.means.mean(0)
        self.rows_center, self.center = center, center.double()
        self.order = torch.arange(len(components.means), device=center.device)
        self.first_sharp = len(self.order)
        if center.dtype != torch.float64:
            squared_norm = (components.means - center).square()
            sharp = squared_norm.div(components.covariances).sum(1) > SHARP
            # The sharp ones last, so that their columns are a slice.
            self.order, self.first_sharp = sharp.int().argsort(stable=True), len(sharp) - int(sharp.sum())
            components = components.select(self.order)
            self.squared_norm = squared_norm.sum(1)[self.order[self.first_sharp :]]
            self.precision = (1 / components.covariances[self.first_sharp :]).amax(1)
        wide_terms = diagonal_terms(components.to(torch.float64), self.center)
        self.sharp_terms = tuple(term[..., self.first_sharp :] for term in wide_terms)
        offset, *coefficients = (term.to(center.dtype) for term in wide_terms)
        self.offset, self.coefficients = offset, torch.cat([part.T for part in coefficients], dim=1)
        self.screen = _Screen(offset, self.coefficients) if _screening_pays(offset) else None
        self.factors = center.new_zeros(0, 2 * len(center))

    def __call__(self, chunk: Tensor) -> ChunkDensities:
        """Log joint densities of rows ``[n,D]``, for the components that are not negligible for every row."""
        n_rows = len(chunk)
        factors = self._factors(chunk)
        columns = self._all if self.screen is None else self._of(self.screen.near(factors[:n_rows]))
        if len(columns.numbers) > len(self.order) / 2:  # as in a fit's first steps, when all are as wide as the data
            self.screen = None
        joint = linear(factors[: recurring(n_rows, ROWS)], columns.coefficients, columns.offset)
        joint = joint[:n_rows, : len(columns.numbers)]
        first = int((columns.numbers < self.first_sharp).sum())
        if first < len(columns.numbers):
            narrow = columns.numbers[first:] - self.first_sharp
            self._refine(joint[:, first:], joint[:, :first], narrow, chunk, factors[:n_rows, chunk.shape[1] :])
        return ChunkDensities(joint, self.order[columns.numbers], first, factors)

    def _factors(self, chunk: Tensor) -> Tensor:
        n_rows, dim = chunk.shape
        if len(self.factors) < n_rows + ROWS:
            self.factors = self.factors.new_zeros(n_rows + ROWS, 2 * dim)
        rows, squares = self.factors[:n_rows].split(dim, dim=1)
        torch.sub(chunk, self.rows_center, out=rows)
        torch.square(rows, out=squares)
        return self.factors

    @cached_property
    def _all(self) -> _Columns:
        return self._of(torch.arange(len(self.order), device=self.order.device))

    def _of(self, numbers: Tensor) -> _Columns:
        """Terms of components ``numbers`` ``[m]``, padded with component 0 (:func:`recurring`); the caller drops it."""
        filling = recurring(len(numbers), COLUMNS) - len(numbers)
        filled = F.pad(numbers, (0, filling))
        return _Columns(numbers, self.offset[filled], self.coefficients[filled])

    def _refine(self, rough: Tensor, others: Tensor, narrow: Tensor, chunk: Tensor, squares: Tensor) -> None:
        """Replace the sharp components' columns ``rough`` by exact values, or by -inf far away."""
        reach = torch.maximum(self.squared_norm[narrow], squares.sum(1).amax())
        error = 32 * torch.finfo(torch.float32).eps * self.precision[narrow] * reach
        # Best guaranteed density of each row; values of components that are not sharp need no margin for error.
        best = torch.cat([others, rough - error], dim=1).amax(1)
        near = rough > (best + UNDERFLOW).unsqueeze(1) - error
        rough.fill_(-torch.inf)
        row, column = (index.unique() for index in near.nonzero(as_tuple=True))
        exact = chunk[row].double() - self.center
        terms = (term[..., narrow[column]] for term in self.sharp_terms)
        rough[row.unsqueeze(1), column] = diagonal_products(exact, exact * exact, *terms).to(rough.dtype)


class _Columns(NamedTuple):
    """Terms of selected components, padded for the matrix product."""

    numbers: Tensor  # [m]
    offset: Tensor  # [m + filling]
    coefficients: Tensor  # [m + filling,2D]


class _Screen:
    """Finds the components that a chunk of rows can use, by the log joint densities in bfloat16."""

    roundoff = torch.finfo(torch.bfloat16).eps / 2

    def __init__(self, offset: Tensor, coefficients: Tensor) -> None:
        # The offset, which is large, in two parts; what then is left out of it is a share of roundoff².
        high = offset.bfloat16().float()
        self.coefficients = torch.cat([coefficients, torch.stack([high, offset - high], dim=1)], dim=1).bfloat16().T
        # |x·l − x'·l'| <= (2u + u²) |x| |l| for factors rounded with unit roundoff u; a third u is ample for float32's.
        self.errors = [3 * self.roundoff * part.norm(dim=1) for part in coefficients.chunk(2, dim=1)]
        self.margin = 1 + self.roundoff**2 * offset.abs()
        self.factors = self.coefficients.new_ones(0, len(self.coefficients))

    def near(self, factors: Tensor) -> Tensor:
        """Ascending numbers of the components whose responsibility may not underflow in a row of factors ``[n,2D]``."""
        n_rows, width = factors.shape
        if len(self.factors) < n_rows + ROWS:
            self.factors = self.factors.new_ones(n_rows + ROWS, width + 2)
        self.factors[:n_rows, :width] = factors
        joint = (self.factors[: recurring(n_rows, ROWS)] @ self.coefficients)[:n_rows].float()
        lengths = [part.norm(dim=1).amax() for part in factors.chunk(2, dim=1)]
        error = lengths[0] * self.errors[0] + lengths[1] * self.errors[1] + self.margin
        best = (joint - error).amax(1, keepdim=True)
        reach = joint.sub_(best).amax(0)
        # The products' results are rounded as well: two of them, which where it matters are no larger than this.
        largest = best.abs().amax() - UNDERFLOW + error
        return torch.nonzero(reach + error + 4 * self.roundoff * largest > UNDERFLOW).squeeze(1)


def _screening_pays(offset: Tensor) -> bool:
    return fast_bfloat16(offset.device) and offset.dtype == torch.float32 and len(offset) >= _FEWEST
