"""Log densities of many rows under many diagonal Gaussians, of which few matter to any row.

``diagonal_terms`` expands the Mahalanobis term into two matrix products around a common centre. Two things are added
for the E step of the DPMM, where a density so low that its responsibility underflows need not be known:

* An image uses few components. Where the processor multiplies bfloat16 several times faster than float32, a product in
  bfloat16, whose error has a bound, finds those that a chunk of rows can use; only they are computed.
* In components so narrow that float32 would lose accuracy in the expansion ("sharp"), float64 is used for the rows near
  one of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dino_uad.heads.dpmm.gaussian import UNDERFLOW, Components, diagonal_products, diagonal_terms
from dino_uad.processor import fast_bfloat16

# Σ_d (μ−c)²/σ² above which the expanded Mahalanobis term may be off by more than 1e-3 in float32.
SHARP = 1e-3 / torch.finfo(torch.float32).eps
_FEWEST = 64  # components below which a first product in bfloat16 saves nothing


class ChunkDensities(NamedTuple):
    """What is known of a chunk of ``n`` rows.

    The responsibilities of components that are not listed underflow in every row, as do those given as -inf.
    """

    joint: Tensor  # [n,m]: log joint densities
    numbers: Tensor  # [m]: the components they belong to
    first_sharp: int  # place in ``numbers`` of the first sharp one; all after it are
    centred: Tensor  # [n,D]: the rows less the centre
    squares: Tensor  # [n,D]


class Densities:
    """Log joint densities of chunks of rows under ``components``, diagonal covariances ``[K,D]``."""

    def __init__(self, components: Components) -> None:
        center = components.means.mean(0)
        self.rows_center, self.center = center, center.double()
        self.numbers = self.order = torch.arange(len(components.means), device=center.device)
        self.first_sharp = len(self.order)
        if center.dtype != torch.float64:
            squared_norm = (components.means - center).square()
            sharp = squared_norm.div(components.covariances).sum(1) > SHARP
            # The sharp ones last, so that their columns are a slice.
            self.order, self.first_sharp = sharp.int().argsort(stable=True), len(sharp) - int(sharp.sum())
            components = components.select(self.order)
            self.squared_norm = squared_norm.sum(1)[self.order[self.first_sharp :]]
            self.precision = (1 / components.covariances[self.first_sharp :]).amax(1)
        wide_terms = diagonal_terms(Components(*(tensor.double() for tensor in components)), self.center)
        self.terms = tuple(term.to(center.dtype) for term in wide_terms)
        self.sharp_terms = tuple(term[..., self.first_sharp :] for term in wide_terms)
        self.screen = _Screen(*self.terms) if _screening_pays(self.terms[0]) else None

    def __call__(self, chunk: Tensor) -> ChunkDensities:
        """Those of rows ``[n,D]`` under all components that matter to one of them."""
        centred = chunk - self.rows_center
        squares = centred.square()
        near = slice(None) if self.screen is None else self.screen.near(centred, squares)
        numbers = self.numbers[near]
        first = self.first_sharp if self.screen is None else int((numbers < self.first_sharp).sum())
        if len(numbers) > len(self.numbers) / 2:  # as in a fit's first steps, when all are as wide as the data
            self.screen = None
        joint = diagonal_products(centred, squares, *_columns(self.terms, near))
        if first < len(numbers):
            self._refine(joint[:, first:], joint[:, :first], numbers[first:] - self.first_sharp, chunk, squares)
        return ChunkDensities(joint, self.order[numbers], first, centred, squares)

    def _refine(self, rough: Tensor, others: Tensor, narrow: Tensor, chunk: Tensor, squares: Tensor) -> None:
        """Replace the sharp components' columns ``rough`` by exact values, or by -inf far away."""
        reach = torch.maximum(self.squared_norm[narrow], squares.sum(1).amax())
        error = 32 * torch.finfo(torch.float32).eps * self.precision[narrow] * reach
        # The best of the lower bounds; a wide component's value is exact enough to be its own.
        best = torch.cat([others, rough - error], dim=1).amax(1)
        near = rough > (best + UNDERFLOW).unsqueeze(1) - error
        rough.fill_(-torch.inf)
        row, column = (index.unique() for index in near.nonzero(as_tuple=True))
        exact = chunk[row].double() - self.center
        terms = _columns(self.sharp_terms, narrow[column])
        rough[row.unsqueeze(1), column] = diagonal_products(exact, exact * exact, *terms).to(rough.dtype)


class _Screen:
    """Finds the components that a chunk of rows can use, by the log joint densities in bfloat16."""

    roundoff = torch.finfo(torch.bfloat16).eps / 2

    def __init__(self, offset: Tensor, linear: Tensor, quadratic: Tensor) -> None:
        # The offset, which is large, in two parts; what then is left out of it is a share of roundoff².
        high = offset.bfloat16().float()
        self.coefficients = torch.cat([linear, quadratic, torch.stack([high, offset - high])]).bfloat16()
        # |x·l − x'·l'| <= (2u + u²) |x| |l| for factors rounded with unit roundoff u; a third u is ample for float32's.
        self.errors = 3 * self.roundoff * linear.norm(dim=0), 3 * self.roundoff * quadratic.norm(dim=0)
        self.margin = 1 + self.roundoff**2 * offset.abs()
        self.factors = self.coefficients.new_ones(0, len(self.coefficients))

    def near(self, rows: Tensor, squares: Tensor) -> Tensor:
        """Ascending numbers of the components whose responsibility may not underflow in one of the rows ``[n,D]``."""
        joint = (self._factors(rows, squares) @ self.coefficients).float()
        error = rows.norm(dim=1).amax() * self.errors[0] + squares.norm(dim=1).amax() * self.errors[1] + self.margin
        best = (joint - error).amax(1, keepdim=True)
        reach = joint.sub_(best).amax(0)
        # The products' results are rounded as well: two of them, which where it matters are no larger than this.
        largest = best.abs().amax() - UNDERFLOW + error
        return torch.nonzero(reach + error + 4 * self.roundoff * largest > UNDERFLOW).squeeze(1)

    def _factors(self, rows: Tensor, squares: Tensor) -> Tensor:
        n, dim = rows.shape
        if len(self.factors) < n:
            self.factors = self.factors.new_ones(n, self.factors.shape[1])
        self.factors[:n, :dim], self.factors[:n, dim : 2 * dim] = rows, squares
        return self.factors[:n]


def _screening_pays(offset: Tensor) -> bool:
    return fast_bfloat16(offset.device) and offset.dtype == torch.float32 and len(offset) >= _FEWEST


def _columns(terms: tuple[Tensor, Tensor, Tensor], index: Tensor | slice) -> tuple[Tensor, Tensor, Tensor]:
    """``diagonal_terms`` of some components; the coefficients lie in memory component by component."""
    offset, linear, quadratic = terms
    return offset[index], linear.T[index].T, quadratic.T[index].T
