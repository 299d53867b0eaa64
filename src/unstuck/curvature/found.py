"""What a search for critical points ended at, and which kind of point that is.

    point.outcome, point.kind           # "critical", "saddle"
    point.loss, point.gradient, point.index
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unstuck.curvature.product import Hessian
from unstuck.linalg.spectrum import Index, counted, index, quadrature

Outcome = Literal["critical", "gradient-flat", "ran out"]
Kind = Literal["saddle", "minimum", "maximum", "degenerate", "undecided"]

CRITICAL: Outcome = "critical"
FLAT: Outcome = "gradient-flat"
RAN_OUT: Outcome = "ran out"

RESIDUAL = 0.9
"""Gradient-flat where the best step leaves more than this share of the gradient in H p + g (Frye et al. 2021). That
steps are bounded is ours: an eigenvalue of 1e-12 solves the equation too, by a step that no quadratic model covers."""

ZERO = 1e-6
"""Eigenvalues below this share of the largest are rounding."""

PROBES, DEPTH = 4, 30
"""Random starts and products of each for the spectrum of a model too large for its matrix."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Found:
    """Where a search ended.

    parameters     θ [n], float64, as of `Flat`
    loss, gradient the loss and ‖∇L‖ there
    squares        ‖∇L‖² at the start and after every step
    outcome        critical (‖∇L‖ ≤ tolerance), gradient-flat (`relative` above 0.9 while ‖∇L‖ > tolerance), or ran out
                   (of steps, of time, or of steps that lower ‖∇L‖² any further)
    relative       min ‖H p + g‖ / ‖g‖ over steps up to the parameters' own length (one at least): what no step mends
    flatness       ‖H g‖ / (‖H‖ ‖g‖), 0 where the gradient lies in the kernel (NaN for g = 0)
    eigenvalues    [n] of H, ascending; None above 2 000 parameters
    shares         of eigenvalues below −`zero`, about 0 and above `zero`: counted, or estimated at 95 % each
    ends           λmin and λmax; where they are not known, Ritz values: λmin ≤ ends[0], λmax ≥ ends[1]
    scale          ‖H‖, or a lower bound on it
    products, gradients   spent, in Hessian-vector products and gradients
    """

    parameters: Tensor
    loss: float
    gradient: float
    squares: tuple[float, ...]
    outcome: Outcome
    relative: float
    flatness: float
    eigenvalues: Tensor | None
    shares: Index
    ends: tuple[float, float]
    scale: float
    products: int
    gradients: int

    @property
    def steps(self) -> int:
        """Steps taken."""
        return len(self.squares) - 1

    @property
    def zero(self) -> float:
        """Size below which an eigenvalue's sign says nothing; see `resolution`."""
        return resolution(self.scale, self.gradient)

    @property
    def index(self) -> int | None:
        """Number of eigenvalues below −`zero`: 0 at a minimum, n at a maximum. None where they are not known.

        It is the index of the point returned. At a degenerate critical point (a monkey saddle) eigenvalues that are
        zero at the point itself are small and of either sign beside it."""
        return None if self.eigenvalues is None else self.shares.negative.count

    @property
    def share(self) -> float:
        """Index over the number of parameters; an estimate where the eigenvalues are not known."""
        return self.shares.negative.estimate

    @property
    def kind(self) -> Kind:
        """By second order: saddle, minimum, maximum; degenerate (no sign but one, and zeros beside it: higher orders
        decide); undecided where no eigenvalue of the one sign was seen, but not all are known."""
        down, up = self.ends[0] < -self.zero, self.ends[1] > self.zero
        if down and up:
            return "saddle"
        if self.eigenvalues is None:
            return "undecided"
        if self.shares.zero.count:
            return "degenerate"
        return "minimum" if up else "maximum"


def resolution(scale: float, gradient: float) -> float:
    """max(10⁻⁶‖H‖, √(‖H‖‖∇L‖)): eigenvalues below say nothing, as in the second-order conditions of Nesterov & Polyak
    (2006), the third derivative taken to be of the size of the second."""
    return max(ZERO * scale, math.sqrt(scale * gradient))


def counted_spectrum(matrix: Tensor, gradient: float) -> tuple[Tensor, Index, tuple[float, float]]:
    """(eigenvalues, shares, ends) of the whole Hessian [n, n]. O(n³)."""
    values = torch.linalg.eigvalsh(matrix)
    zero = resolution(float(values.abs().max()), gradient)
    return values, counted(values.cpu(), zero), (float(values[0]), float(values[-1]))


def estimated_spectrum(hessian: Hessian, scale: float, gradient: float) -> tuple[Index, tuple[float, float]]:
    """(shares, ends) by Lanczos from four random starts. At most 120 products."""
    spectrum = quadrature(hessian, hessian.size, PROBES, DEPTH, 0, hessian.flat.dtype, hessian.flat.device)
    nodes = torch.cat([probe.nodes for probe in spectrum.probes])
    zero = resolution(max(scale, float(nodes.abs().max())), gradient)
    return index(spectrum, zero, CONFIDENCE), (float(nodes.min()), float(nodes.max()))
