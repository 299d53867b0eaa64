"""Lanczos with full reorthogonalization: Ritz values of a symmetric operator, until a question is answered.

    A Q = Q T + Q₊ B eᵀ          Q [m, n] orthonormal, T [m, m] its projection, B [b, b] what leaves the space

The Ritz pairs (θ, Qᵀs) of T s = θ s have residual ‖A y − θ y‖ = ‖B s_last‖: within that distance of θ lies *some*
eigenvalue of A (Parlett 1998, §13.2). Which one, only a certificate tells (`linalg.certificate`).

    ritz = lanczos(lambda v: matrix @ v, start, enough=lambda r: r.residuals[0] < 1e-3, most=100)
    ritz.values[0], ritz.residuals[0], ritz.vectors(0)

Every new vector is orthogonalized against the two before it, as far as which it reaches in exact arithmetic, and then
against all ("twice is enough", Giraud et al. 2005): without it Ritz values come back as ghosts, and no bound holds.
Costs one product a vector, 4·m·n flops for its orthogonalization, and m·n numbers of memory. With a start of several
rows `[b, n]` whole blocks are multiplied (one graph serves b vectors).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.errors import BadArgument

SMALL = 1e-2
"""A remainder of this share of the operator's size is orthogonalized a third time."""

Matvec = Callable[[Tensor], Tensor]
"""`[n] → [n]`, or rows `[b, n] → [b, n]`."""


@dataclass(frozen=True)
class Ritz:
    """Where Lanczos stands after `products` products.

    projection   T [m, m], float64
    leaves       B [b, b], float64: the part of the last product outside of the space (0: the space is invariant)
    basis        Q [m, n], in the operator's dtype
    size         n; `exhausted`: the space is invariant, so that every Ritz value is an eigenvalue
    """

    projection: Tensor
    leaves: Tensor
    basis: Tensor
    products: int
    exhausted: bool

    @property
    def size(self) -> int:
        """Dimension of the operator."""
        return self.basis.shape[1]

    @property
    def block(self) -> int:
        """Rows of the start: 1 for plain Lanczos."""
        return self.leaves.shape[0]

    @functools.cached_property
    def _pairs(self) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(self.projection)
        return values, vectors

    @property
    def values(self) -> Tensor:
        """Ritz values [m], ascending. Each lies inside of [λmin, λmax] (Rayleigh quotients)."""
        return self._pairs[0]

    @functools.cached_property
    def residuals(self) -> Tensor:
        """‖A y − θ y‖ of each Ritz pair [m]."""
        last = self._pairs[1][-self.block :]
        lengths: Tensor = (self.leaves @ last).norm(dim=0)
        return lengths

    @functools.cached_property
    def weights(self) -> Tensor:
        """Squared first components [m]: the Gauss quadrature of the start's spectral measure (plain Lanczos)."""
        return self._pairs[1][0].square()

    def vectors(self, *which: int) -> Tensor:
        """Ritz vectors [len(which), n] of these places in `values`, of length one."""
        chosen: Tensor = self._pairs[1][:, list(which)].T.to(self.basis)
        return chosen @ self.basis

    @property
    def scale(self) -> float:
        """Largest Ritz value in size: a lower bound on ‖A‖."""
        return float(self.values.abs().max())


def lanczos(matvec: Matvec, start: Tensor, enough: Callable[[Ritz], bool], most: int) -> Ritz:
    """Extend the Krylov space of `start` ([n], or rows [b, n]) until `enough(ritz)` or `most` products are spent.

    `enough` is asked after every product. The start need not be normalized; its dtype is that of all vectors.
    Raises BadArgument for a start without direction, `most` < 1, or a product that is not finite.
    """
    rows = start.reshape(-1, start.shape[-1])
    if most < 1:
        raise BadArgument(f"lanczos: `most` must be at least 1 product, got {most}")
    usable = rows.is_floating_point() and rows.numel() > 0
    if not usable or not bool(torch.isfinite(rows).all()) or not bool(rows.any(dim=1).all()):
        raise BadArgument("lanczos: `start` must be floating point, finite and not zero; draw it at random")
    size, width = rows.shape[1], min(*rows.shape, most)
    basis = torch.empty(0, size, dtype=rows.dtype, device=rows.device)
    storage = torch.empty(min(most + width, size + width), size, dtype=rows.dtype, device=rows.device)
    block, _ = _orthonormal(rows[:width], basis)
    filled, products = 0, 0
    projection = torch.zeros(0, 0, dtype=torch.float64)
    while True:
        storage[filled : filled + len(block)] = block
        filled += len(block)
        basis = storage[:filled]
        made = matvec(block[0] if start.dim() == 1 else block).detach().reshape(len(block), size)
        products += len(block)
        if not bool(torch.isfinite(made).all()):
            raise BadArgument("lanczos: `matvec` gave a product that is not finite")
        inside, outside = _split(made, basis, 2 * width)
        projection = _extended(projection, inside)
        block, leaves = _orthonormal(outside, basis, _spread(projection))
        exhausted = not len(block) or filled >= size
        wide = torch.zeros(len(made), len(made), dtype=torch.float64)
        wide[: leaves.shape[0]] = leaves
        ritz = Ritz(projection, wide * (not exhausted), basis, products, exhausted)
        if exhausted or products + len(block) > most or enough(ritz):
            return ritz


def _split(made: Tensor, basis: Tensor, near: int) -> tuple[Tensor, Tensor]:
    """Q A qᵀ [m, b], and the rest [b, n]: twice orthogonalized, first against the `near` newest vectors alone, which is
    all that a product has a part of but for rounding."""
    newest = basis[-near:]
    first = newest @ made.T
    rest = made - first.T @ newest
    inside = basis @ rest.T
    rest -= inside.T @ basis
    inside[-near:] += first
    return inside, rest


def _extended(projection: Tensor, inside: Tensor) -> Tensor:
    """T with rows and columns for the newest block: Q A qᵀ [m, b], symmetrized."""
    m, b = inside.shape
    column = _wide(inside)
    new = torch.zeros(m, m, dtype=torch.float64)
    new[: m - b, : m - b] = projection
    new[:, m - b :] = column
    new[m - b :, : m - b] = column[: m - b].T
    new[m - b :, m - b :] = (column[m - b :] + column[m - b :].T) / 2
    return new


def _orthonormal(rows: Tensor, basis: Tensor, scale: float = 0.0) -> tuple[Tensor, Tensor]:
    """Orthonormal rows that span what of `rows` lies outside of `basis`, and B [k, b] with `rows` ≈ Bᵀ rows + inside.

    `rows` have been orthogonalized twice. A direction smaller than rounding against `scale` is none: the space is
    (nearly) invariant there.
    """
    tiny = 10 * torch.finfo(rows.dtype).eps * max(scale, 0.0)
    if len(rows) == 1:
        length = float(torch.linalg.vector_norm(rows, dtype=torch.float64))  # squares of float32 under- and overflow
        if length <= tiny or length == 0:
            return rows[:0], torch.zeros(0, 1, dtype=torch.float64)
        row = rows / length
        return (row if length > SMALL * scale else _again(row, basis)), torch.tensor([[length]], dtype=torch.float64)
    directions, lengths, mix = torch.linalg.svd(rows.T, full_matrices=False)  # shows the rank, as QR does not
    keep = lengths > tiny
    return _again(directions.T[keep], basis), _wide(lengths[keep].unsqueeze(1) * mix[keep])


def _again(rows: Tensor, basis: Tensor) -> Tensor:
    """Once more against the basis: after a small remainder was blown up to length one, so were its errors."""
    if not len(basis) or not len(rows):
        return rows
    rows = rows - (rows @ basis.T) @ basis
    lengths: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / lengths


def _spread(projection: Tensor) -> float:
    return float(projection.abs().sum(dim=1).max())


def _wide(tensor: Tensor) -> Tensor:
    wide: Tensor = tensor.detach().to("cpu", torch.float64)
    return wide
