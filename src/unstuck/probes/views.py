"""Three planes through the point where a training stands, and how far to look along each.

    random       two filter-normalised random directions, from −1 to 1 (Li et al. 2018)
    path         the first two principal components of the training's states, as far as the training went
    curvature    the gradient, and the Hessian's eigenvector along which the loss bends down, or else the most; as far
                 as the quadratic model changes by half of the loss

    view = along_path(problem)
    view.directions, view.x, view.y
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.curvature.eigen import extremes
from unstuck.curvature.flat import Flat
from unstuck.curvature.forward import twin_at
from unstuck.curvature.measure import measurable
from unstuck.probes.directions import coordinates, filter_normalised, orthonormal, principal, states
from unstuck.problem import Problem

MARGIN = 0.25
"""Around the training's path, of its extent."""

PRODUCTS, FEWEST, TOLERANCE = 40, 8, 0.05
"""Of Lanczos: a direction to look along need not be the eigenvector itself. An eigenvalue that is a smaller share of
the largest is not called negative."""

DEAR = 4.0
"""Gradients that a product takes at most, by any of the ways that there are."""

Range = tuple[float, float]


@dataclass(frozen=True)
class View:
    """Directions [2, n] in the order of `Flat`, what they are called, and from where to where to look along each."""

    name: str
    x_name: str
    y_name: str
    directions: Tensor
    x: Range
    y: Range


def along_random(problem: Problem, seconds: float = math.inf) -> View:
    """Raises NotMeasurable where no filter has a length."""
    flat = Flat(twin_at(problem, last=True))
    directions = filter_normalised(flat, torch.Generator().manual_seed(problem.seed), 2)
    return View("random", "a random direction", "another one", directions, (-1.0, 1.0), (-1.0, 1.0))


def along_path(problem: Problem, seconds: float = math.inf) -> View:
    """Raises NotMeasurable where fewer than three states are known, or all lie on a line."""
    flat = Flat(twin_at(problem, last=True))
    known = states(problem, flat)
    directions, (first, second) = principal(known)
    x, y = coordinates(directions, known - flat.values()).T.tolist()
    x_name, y_name = f"1st principal component ({first:.1%})", f"2nd principal component ({second:.1%})"
    return View("path", x_name, y_name, directions, _around(x), _around(y))


def along_curvature(problem: Problem, seconds: float = math.inf) -> View:
    """Costs a gradient and 10 to 42 products, by the `seconds` there are. Raises NotMeasurable where there is no
    Hessian, or it and the gradient are 0."""
    began = time.perf_counter()
    hessian, _ = measurable(problem)
    slopes = hessian.slopes()
    left = seconds - (time.perf_counter() - began)
    most = max(FEWEST, min(PRODUCTS, left / (DEAR * hessian.seconds)))
    ends = extremes(hessian, tolerance=TOLERANCE, most=int(most))
    least, greatest = ends.values
    candidates = [
        ("the gradient", slopes.gradient),
        (f"the most negative curvature, λ ≈ {least:.3g}", ends.vectors[0] * (least < -TOLERANCE * greatest)),
        (f"the steepest curvature, λ ≈ {greatest:.3g}", ends.vectors[1]),
        (f"the least curvature, λ ≈ {least:.3g}", ends.vectors[0]),
    ]
    directions, (one, other) = orthonormal([vector for _, vector in candidates])
    bends = (directions * hessian(directions)).sum(dim=1)
    far = max(1.0, float(hessian.flat.values().norm()))
    x, y = (
        min(far, half_way(float(d @ slopes.gradient), float(bend), slopes.loss))
        for d, bend in zip(directions, bends, strict=True)
    )
    return View("curvature", candidates[one][0], candidates[other][0], directions, (-x, x), (-y, y))


def half_way(slope: float, bend: float, loss: float) -> float:
    """The length α at which |slope| α + |bend| α² / 2 is half of the loss; inf where both are 0."""
    half = max(abs(loss), 1e-12) / 2
    root = abs(slope) + math.sqrt(slope**2 + 2 * abs(bend) * half)
    return 2 * half / root if root else math.inf


def _around(values: list[float]) -> Range:
    margin = MARGIN * (max(values) - min(values))
    return min(values) - margin, max(values) + margin
