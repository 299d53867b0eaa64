"""The minimum-residual, minimum-length solution of a symmetric system that may be singular, by products alone.

    x = A†b:   min ‖x‖  among all  argmin ‖A x − b‖              or, bounded:  argmin ‖A x − b‖ over ‖x‖ ≤ `longest`

Lanczos is begun on b itself. With its basis kept, A Qᵀ = Q₊ᵀT̲ (T̲: the projection T with the row B e_lastᵀ below), and
what is left is a small dense least-squares problem,

    min_y ‖T̲ y − ‖b‖ e₁‖,    x = Qᵀy,

solved by its singular values. No recurrence is needed, and full reorthogonalization leaves none of the rounding that
MINRES-QLP (Choi, Paige & Saunders 2011) is built to withstand; the answer is the same.

    solution = minres(lambda v: matrix @ v, right)
    solution.x, solution.residual, solution.products

Where b has a part outside of the range of A, every Krylov space holds just one direction of the kernel, and the
residual converges to it. So A†b is had from any least-squares solution in the space by taking that direction out:
x − (r·x / r·r) r ("lifting", Liu, Milzarek & Roosta 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.errors import BadArgument
from unstuck.linalg.lanczos import Matvec, Ritz, lanczos

CUTOFF = 1e-12
"""Singular values below this share of the largest count as zero."""

ASK = 8
"""Whether it is enough is asked every so many products, and at every one of the first few: asking costs O(m³)."""

ROUNDS = 100
"""Newton's iterations for the damping, at most: about ten are needed."""

LIFT = 1e-4
"""A residual with ‖A r‖ below this share of ‖A‖‖r‖ is a direction of the kernel, which the solution is freed of."""


@dataclass(frozen=True)
class Solution:
    """An approximate A†b.

    x          [n], in the dtype of b
    rest       b − A x [n], from a product with x; `residual`: its norm, `right`: ‖b‖
    damping    μ ≥ 0: 0 unless the length was bounded, then (A² + μ) x = A b
    slope      ‖A r − μ x‖, r = b − A x: zero at the solution, whether or not the system can be solved
    scale      ‖A‖, or a lower bound on it (the largest Ritz value)
    products   spent in all, those for `rest` and `slope` included
    """

    x: Tensor
    rest: Tensor
    right: float
    damping: float
    slope: float
    scale: float
    products: int

    @property
    def residual(self) -> float:
        """‖A x − b‖."""
        return float(self.rest.norm())

    @property
    def relative(self) -> float:
        """‖A x − b‖ / ‖b‖: 0 where b lies in the range of A, 1 where it lies in the kernel (0 for b = 0)."""
        return self.residual / self.right if self.right else 0.0


def minres(
    matvec: Matvec,
    right: Tensor,
    tolerance: float = 1e-10,
    most: int | None = None,
    cutoff: float = CUTOFF,
    longest: float = math.inf,
) -> Solution:
    """The least-squares solution of A x = b of least length, for symmetric A [n, n] and b [n] = `right`.

        stop as soon as  ‖r‖ ≤ tolerance ‖b‖  or  ‖A r − μ x‖ ≤ tolerance ‖A‖ ‖r‖

    At most `most` products (n if left out) and two or three more for the figures; m products need m·n numbers of memory
    and 4·m·n flops each. Exact up to rounding once the Krylov space is exhausted, after as many products as A has
    distinct eigenvalues with a part of b; before, the residual is the smallest in that space. Eigenvalues below
    `cutoff`·‖A‖ count as zero: the part of b along them is left in the residual. `longest` bounds ‖x‖: then the
    residual is the smallest within that length (a trust region of nonlinear least squares, Moré 1978).

    Raises BadArgument for a `right` that is no finite vector, `most` < 1, `longest` not above 0, or a product that is
    not finite.

        minres(lambda v: torch.tensor([2.0, -1.0, 0.0]) * v, torch.tensor([2.0, 3.0, 4.0])).x      # [1, −3, 0]
    """
    _check(right, longest, "minres")
    if most is not None and most < 1:
        raise BadArgument(f"minres: `most` must be at least 1 product, got {most}; leave it out for as many as needed")
    length = float(right.norm())
    if not length:
        return Solution(torch.zeros_like(right), right, 0.0, 0.0, 0.0, 0.0, 0)
    ritz = lanczos(matvec, right, lambda r: _enough(r, length, tolerance, cutoff, longest), most or len(right))
    y, damping = _least_squares(_below(ritz), length, cutoff, longest)
    x = ritz.basis.T @ y.to(right)
    rest = right - matvec(x)
    bent = matvec(rest)
    products = ritz.products + 2
    square = float(rest @ rest)
    if not damping and square > (cutoff * length) ** 2 and float(bent.norm()) <= LIFT * ritz.scale * square**0.5:
        share = float(rest @ x) / square
        x, rest = x - share * rest, rest + share * bent
        bent = matvec(rest)
        products += 1
    return Solution(x, rest, length, damping, float((bent - damping * x).norm()), ritz.scale, products)


def pseudo_inverse(matrix: Tensor, right: Tensor, cutoff: float = CUTOFF, longest: float = math.inf) -> Solution:
    """The same by an eigendecomposition: x = Σ λᵢ (vᵢ·b) / (λᵢ² + μ) vᵢ over |λᵢ| > `cutoff`·max |λ|. O(n³).

    Its products are counted as n, those that A [n, n] is worth. Raises BadArgument for a matrix that is not square, a
    `right` of another length or not finite, `longest` not above 0.

        pseudo_inverse(torch.diag(torch.tensor([2.0, 0.0])), torch.tensor([2.0, 3.0])).x            # [1, 0]
    """
    _check(right, longest, "pseudo_inverse")
    if matrix.shape != (len(right), len(right)):
        raise BadArgument(
            f"pseudo_inverse: `matrix` must be [{len(right)}, {len(right)}] as `right` is, got {list(matrix.shape)}"
        )
    values, vectors = torch.linalg.eigh(matrix)
    scale = float(values.abs().max())
    parts = vectors.T @ right
    inside, damping = _filtered(values, parts, cutoff, longest)
    rest = parts - values * inside
    slope = float((values * rest - damping * inside).norm())
    return Solution(vectors @ inside, vectors @ rest, float(right.norm()), damping, slope, scale, len(right))


def _enough(ritz: Ritz, length: float, tolerance: float, cutoff: float, longest: float) -> bool:
    """Asked of the solution one product ago: of its residual in the present basis the product is known in full."""
    m = len(ritz.projection)
    if m < 2 or (m > ASK and m % ASK):
        return False
    before = ritz.projection[:, :-1]
    y, damping = _least_squares(before, length, cutoff, longest)
    r = -(before @ y)
    r[0] += length
    residual = float(r.norm())
    bent = torch.cat([ritz.projection @ r, ritz.leaves[0] * r[-1]])
    bent[: m - 1] -= damping * y
    return residual <= tolerance * length or float(bent.norm()) <= tolerance * ritz.scale * residual


def _below(ritz: Ritz) -> Tensor:
    """T̲ [m + 1, m]: the projection, and what leaves the space."""
    last = torch.zeros(1, len(ritz.projection), dtype=torch.float64)
    last[0, -1] = ritz.leaves[0, 0]
    return torch.cat([ritz.projection, last])


def _least_squares(matrix: Tensor, length: float, cutoff: float, longest: float) -> tuple[Tensor, float]:
    """argmin ‖M y − length·e₁‖ of least length, or within `longest`; and the damping."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    inside, damping = _filtered(values, length * left[0], cutoff, longest)
    return right.T @ inside, damping


def _filtered(values: Tensor, parts: Tensor, cutoff: float, longest: float) -> tuple[Tensor, float]:
    """z = λ c / (λ² + μ), small λ left out, with the least μ ≥ 0 for which ‖z‖ ≤ `longest`; and μ."""
    keep = values.abs() > cutoff * float(values.abs().max())
    numerator, square = torch.where(keep, values * parts, 0.0), torch.where(keep, values.square(), 1.0)
    damping = 0.0
    for _ in range(ROUNDS):
        z = numerator / (square + damping)
        length = float(z.norm())
        if length <= longest * (1 + 1e-9):
            break
        # Newton on 1/‖z‖, which is concave in μ: from the left it never overshoots (Moré 1978).
        damping += (length / longest - 1) * length**2 / float((z.square() / (square + damping)).sum())
    return z, damping


def _check(right: Tensor, longest: float, function: str) -> None:
    if right.dim() != 1 or not len(right) or not bool(torch.isfinite(right).all()):
        raise BadArgument(f"{function}: `right` must be a finite vector [n], got {list(right.shape)} with "
                          f"{int((~torch.isfinite(right)).sum())} values that are not finite")  # fmt: skip
    if not longest > 0:
        raise BadArgument(f"{function}: `longest` must be above 0, got {longest}; leave it out for no bound")
