"""What kind of point is this? Saddle, minimum, maximum, flat, a slope, or undecided; never a bare word.

Asked in this order, on the full data, each with its figures:

    slope      is there a gradient? Against its noise over samples, and by the decrease it still promises
    flat       would a move as long as the weights themselves change the loss at all, by gradient or curvature?
    saddle     λmin < 0, proven by a Rayleigh quotient, and the loss itself bends down along the line
    maximum    the same at the other end as well: λmax ≤ ε
    minimum    λmin ≥ −ε with probability ≥ 1 − δ (`linalg.certificate`; exact for small models)

ε is `tolerance` · λmax: a second-order stationary point is one up to an ε (Nesterov & Polyak 2006).

    point = classify(problem)
    point.verdict, point.least, point.scan
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from unstuck.curvature.check import Check
from unstuck.curvature.dense import LARGEST
from unstuck.curvature.ends import Ends, exact_ends, lanczos_ends
from unstuck.curvature.measure import measurable
from unstuck.curvature.product import Hessian, Slopes
from unstuck.curvature.scan import Scan, scan
from unstuck.errors import BadArgument, NotMeasurable
from unstuck.linalg.moments import of
from unstuck.problem import Problem

Kind = Literal["saddle", "minimum", "maximum", "flat", "slope", "undecided"]

PROMISE = 1e-3
"""A gradient that promises less than this share of the loss, by the best step along it, is none: Newton's decrement
as a stopping rule (Boyd & Vandenberghe 2004, §9.5.1) at the usual relative tolerance."""

NOISE = 2.0
"""Standard errors: a gradient shorter than so many is not told from 0."""

FLAT = 1e-2
"""A move as long as the weights changes the loss by less than this share of it: flat."""

KERNEL = 1e-2
"""Below this ‖H∇L‖ / (‖H‖ ‖∇L‖) the gradient is said to lie in the Hessian's kernel."""

PIECES = 8
"""Batches at least, for the gradient's noise: fewer are cut where they can be."""

Tick = Callable[[str, float], None]


@dataclass(frozen=True)
class Point:
    """The verdict on a point, and the figures it rests on.

    gradient, noise   ‖∇L‖ over all samples and its standard error (NaN where it cannot be had)
    promise           the decrease that the best step along −∇L makes in the quadratic model (∞: it bends down)
    flatness          ‖H∇L‖ / (‖H‖ ‖∇L‖): near 0 the gradient lies in the Hessian's kernel (gradient-flat)
    length            of the parameter vector (one at least)
    ends              intervals of λmin and λmax, their vectors, all eigenvalues where the model is small
    epsilon           curvature smaller than this is none
    rayleigh          vᵀHv along the most negative direction found, ± `sampling`, its standard error over batches
    scan              the true loss along that direction
    rung, checks      how products were made, and what the self-check found
    gradients         what all this cost, in gradients of the full data, by time
    """

    verdict: Kind
    why: str
    loss: float
    gradient: float
    noise: float
    promise: float
    flatness: float
    length: float
    ends: Ends
    epsilon: float
    rayleigh: float
    sampling: float
    scan: Scan
    samples: int
    parameters: int
    rung: str
    checks: tuple[Check, ...]
    products: int
    gradients: float
    seconds: float

    @property
    def critical(self) -> bool:
        """True if the gradient is not told from 0, or promises next to nothing: by the best step along it, or by a move
        as long as the weights (where the loss does not bend up along it, no step is best)."""
        least = min(self.promise, self.gradient * self.length)
        return self.gradient <= NOISE * self.noise or least <= PROMISE * abs(self.loss)

    @property
    def direction(self) -> Tensor:
        """Unit vector [n] of the most negative (or least positive) curvature found."""
        return self.ends.lowest


def classify(
    problem: Problem,
    tolerance: float = 1e-2,
    failure: float = 0.01,
    budget_s: float = 60.0,
    last: bool = True,
    seed: int = 0,
    tick: Tick = lambda what, share: None,
) -> Point:
    """The kind of point at which a problem's training was left (`last`), or where it began.

    Anytime: at `budget_s` seconds it says what it has. Costs two gradients and 20 to 200 products; n products in
    float64 where the model has up to 4 000 parameters. Raises BadArgument for a tolerance or failure outside of (0, 1),
    NotMeasurable where the problem has no Hessian.
    """
    for name, value in (("tolerance", tolerance), ("failure", failure)):
        if not 0 < value < 1:
            raise BadArgument(f"classify: `{name}` must be between 0 and 1, got {value!r}")
    began = time.perf_counter()
    hessian, checks = checked_hessian(problem, last)
    tick("the gradient", 0.02)
    slopes = hessian.slopes()
    ends = _ends(hessian, tolerance, failure, began, budget_s, seed, tick)
    tick("the loss along the extreme direction", 0.97)
    product, quotients = hessian.along(ends.lowest)
    rayleigh = float(ends.lowest @ product)
    line = scan(hessian, ends.lowest, rayleigh)
    promise, flatness = _along_gradient(hessian, slopes, ends)
    seconds, one = time.perf_counter() - began, seconds_of_a_gradient(hessian)
    figures = Point(
        "undecided", "", slopes.loss, slopes.norm, slopes.noise, promise, flatness,
        max(1.0, float(hessian.flat.values().norm())), ends, tolerance * max(ends.most.high, -ends.least.low, 0.0),
        rayleigh, float(of(quotients).standard_error), line, hessian.data.samples, hessian.size, hessian.rung, checks,
        hessian.products, seconds / one, seconds,
    )  # fmt: skip
    return judged(figures)


def checked_hessian(problem: Problem, last: bool) -> tuple[Hessian, tuple[Check, ...]]:
    """A checked Hessian in pieces that show the gradient's noise; in float64 where the model is small and allows it."""
    hessian, checks = measurable(problem, last=last)
    if hessian.size <= LARGEST and not hessian.double:
        with contextlib.suppress(NotMeasurable):  # a model that cannot run in float64
            hessian, checks = measurable(problem, last=last, double=True)
    hessian.data = hessian.data.cut(PIECES)
    return hessian, checks


def _ends(
    hessian: Hessian, tolerance: float, failure: float, began: float, budget_s: float, seed: int, tick: Tick
) -> Ends:
    left = budget_s - (time.perf_counter() - began)
    if hessian.size <= LARGEST:
        found = exact_ends(hessian, 0.5 * left, tick)
        if found is not None:
            return found
    return lanczos_ends(hessian, tolerance, failure, began + 0.9 * budget_s, seed, tick)


def _along_gradient(hessian: Hessian, slopes: Slopes, ends: Ends) -> tuple[float, float]:
    """(promise, flatness): ‖g‖⁴ / 2gᵀHg, and ‖Hg‖ / (‖H‖‖g‖). One product."""
    norm = slopes.norm
    if norm == 0.0:
        return 0.0, math.nan
    product = hessian(slopes.gradient)
    bend = float(slopes.gradient @ product)
    size = max(abs(ends.least.low), abs(ends.most.high))
    return (norm**4 / (2 * bend) if bend > 0 else math.inf), float(product.norm()) / (size * norm) if size else 0.0


def seconds_of_a_gradient(hessian: Hessian) -> float:
    """Seconds that one plain gradient of the full data takes."""
    once = hessian.part(range(len(hessian.data.sizes)))
    began = time.perf_counter()
    once.gradient_at(hessian.flat.values(), 0.0)
    return max(time.perf_counter() - began, 1e-9)


def judged(point: Point) -> Point:
    """The point with its verdict, from its figures alone."""
    verdict, why = _judge(point)
    return replace(point, verdict=verdict, why=why)


def _judge(point: Point) -> tuple[Kind, str]:
    least, most, epsilon = point.ends.least, point.ends.most, point.epsilon
    between = f"λmin is in [{least.low:.3g}, {least.high:.3g}]"
    sure = "exactly" if not least.failure else f"with probability {100 * (1 - least.failure):.3g} %"
    share = 100 * _moves(point) / max(abs(point.loss), 1e-300)
    if _moves(point) <= FLAT * abs(point.loss):
        return "flat", (
            f"a move as long as the weights changes the loss by {share:.2g} % at most, "
            f"by gradient and curvature ({sure})"
        )
    if not point.critical:
        kernel = point.flatness < KERNEL
        note = "; it lies in the Hessian's kernel (gradient-flat)" if kernel else ""
        return "slope", f"the gradient is {point.gradient:.3g} long, {_beside_noise(point)}{note}"
    if least.low >= -epsilon and most.high > epsilon:
        return "minimum", f"λmin ≥ {least.low:.3g} {sure}, beside λmax {most.high:.3g}"
    if least.high < 0 and most.high <= epsilon:
        return "maximum", f"λmax ≤ {most.high:.3g} {sure}, beside λmin {least.low:.3g}"
    if least.high < -epsilon:
        if point.scan.bends_down:
            return "saddle", f"{between}, and the loss itself bends down along its direction"
        return "undecided", (
            f"λmin ≤ {least.high:.3g}, but the loss itself does not bend down along that direction beyond its spread "
            "over batches"
        )
    return "undecided", f"{between}, which allows of both signs beyond {epsilon:.1g}"


def _moves(point: Point) -> float:
    """What a move as long as the weights can change the loss by, at most, in the quadratic model."""
    slope = 0.0 if point.gradient <= NOISE * point.noise else point.gradient
    bend = max(abs(point.ends.least.low), abs(point.ends.most.high))
    return slope * point.length + 0.5 * bend * point.length**2


def _beside_noise(point: Point) -> str:
    beside = f"{point.gradient / point.noise:.1f} standard errors, " if point.noise > 0 else ""
    if math.isinf(point.promise):
        return f"{beside}and the loss does not bend up along it"
    share = 100 * point.promise / max(abs(point.loss), 1e-300)
    return f"{beside}and promises {share:.2g} % of the loss in one step"
