"""Extreme eigenvalues of a problem's Hessian: `linalg.eigen` over its products, rounding measured by its check.

    hessian, checks = measurable(problem)
    extremes(hessian, "min", 1e-2).values
"""

from __future__ import annotations

import torch
from torch import Tensor

from unstuck.curvature.forward import pinned
from unstuck.curvature.product import Hessian
from unstuck.linalg import eigen
from unstuck.linalg.eigen import Eigen, Want, random_start

ROUNDING = {torch.float64: 1e-14, torch.float32: 1e-5}
"""Relative error of a product: float32 ones were 2e-7 to 9e-6 off their float64 counterparts (measured)."""


@pinned()
def extremes(
    hessian: Hessian,
    want: Want = "both",
    tolerance: float = 1e-2,
    failure: float = 0.01,
    most: int = 200,
    seed: int = 0,
) -> Eigen:
    """λmin, λmax or both of the Hessian; see `linalg.eigen.extremes`. Some 15 to 60 products."""
    return eigen.extremes(hessian, start(hessian, seed), want, tolerance, failure, most, rounding(hessian))


@pinned()
def top(
    hessian: Hessian, count: int, tolerance: float = 1e-3, failure: float = 0.01, most: int = 400, seed: int = 0
) -> Eigen:
    """The `count` largest eigenvalues of the Hessian; see `linalg.eigen.largest`."""
    return eigen.largest(hessian, start(hessian, seed), count, tolerance, failure, most, rounding(hessian))


def start(hessian: Hessian, seed: int = 0) -> Tensor:
    """A random start for Lanczos, in the Hessian's dtype, on its device."""
    return random_start(hessian.size, hessian.flat.dtype, hessian.flat.device, seed)


def rounding(hessian: Hessian) -> float:
    """Relative rounding error of a product."""
    return ROUNDING[hessian.flat.dtype]
