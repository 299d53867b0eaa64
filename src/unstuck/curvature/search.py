"""Critical points of any kind (minima, saddles, maxima) from any state: Newton-MR on the squared gradient norm.

    minimize ‖g(θ)‖²,  g = ∇L:      p = argmin ‖H p + g‖  over  ‖p‖ ≤ radius,      θ ← θ + α p

α is backtracked from 1 until ‖g(θ + αp)‖² ≤ ‖g‖² + 2ρα p·Hg (Roosta, Liu, Xu & Mahoney 2019). Unlike a Newton step p
lowers ‖g‖² whatever the signs and zeros among H's eigenvalues, so that saddles attract as minima do.

For comparison, descent on ‖g‖² (Pennington & Bahri 2017) goes along −H g as far as the linear model of g says,
p = −α H g with α = g·H²g / ‖H²g‖². Its rate is that of steepest descent on a problem of condition κ(H)².

The radius is not in the paper. Without it one eigenvalue near 0 makes a step so long that backtracking leaves nothing
of it: of 60 searches on a small linear autoencoder 10 arrived within 60 steps without it, 57 with it (measured). It
grows where ‖g‖² falls as the linear model says, and shrinks where α does.

Where such a method stands still need not be a critical point: where H g = 0 with g ≠ 0, ‖g‖² may have a minimum of its
own. Frye et al. (2021) call that gradient-flat, and found such searches to end there often. So every point found is
said to be critical, gradient-flat, or neither.

    point = search(problem, seed=3)
    point.outcome, point.loss, point.gradient, point.index
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from unstuck.curvature.dense import dense
from unstuck.curvature.found import CRITICAL, FLAT, RAN_OUT, RESIDUAL, Found, counted_spectrum, estimated_spectrum
from unstuck.curvature.measure import measurable
from unstuck.curvature.product import Hessian, Slopes
from unstuck.curvature.starts import starts
from unstuck.errors import BadArgument
from unstuck.linalg.minres import Solution, minres, pseudo_inverse
from unstuck.problem import Problem

Method = Literal["newton-mr", "descent"]

DENSE, MOST_DENSE = 200, 2000
"""Parameters up to which a step is found from the whole Hessian unless told, and up to which that, and the spectrum of
what was found, are possible at all."""

MOST, INEXACT = 300, 1e-6
"""Products a step may take, and the accuracy of its system: an error of a step is mended by the next."""

ARMIJO, HALVINGS = 1e-4, 30
"""Share ρ of the decrease that the slope promises which is demanded; backtrackings at most."""

REACH = 0.3
"""The first radius over the parameters' norm (one at least)."""

PATIENCE, STALLED = 20, 1e-3
"""A search whose ‖g‖² fell by less than this share over so many steps is at its end."""


def search(
    problem: Problem,
    start: Tensor | None = None,
    most_steps: int = 100,
    tolerance: float = 1e-8,
    seed: int = 0,
    dense: bool | None = None,
    method: Method = "newton-mr",
) -> Found:
    """From `start` [n] to a critical point of the mean loss, in float64.

    start        parameters in the order of `Flat`; left out: one of `starts(problem, …, seed)`
    most_steps   steps at most; a search that stalls ends before
    tolerance    critical where ‖∇L‖ ≤ tolerance (absolute, in units of loss over parameter)
    dense        find steps from the whole Hessian (n products and O(n³) flops a step) instead of at most 300 products;
                 left out: up to 200 parameters
    method       newton-mr, or descent on ‖∇L‖² (two products a step, and many more steps)

    A step costs its products, and a gradient for each backtracking and for the move. The point is exact to about
    `gradient` over the smallest non-zero |eigenvalue|. A gradient may also vanish at infinity (classes that can be
    separated): it passes any tolerance on the way out. Across kinks (ReLU) H is not the derivative of g, and the search
    may stand still at once. For several searches: `measurable`, then `search_from` for each of `starts`.

    Raises BadArgument for a start of another size or not finite, `most_steps` < 1, `tolerance` not above 0, `dense`
    above 2 000 parameters, or another `method`; NotMeasurable where there are no second derivatives, or no finite loss
    at the start.

        search(problem, start, most_steps=50).outcome
    """
    _check(most_steps, tolerance, method)
    hessian, _ = measurable(problem, double=True)
    where = starts(problem, 1, seed)[0] if start is None else start
    return search_from(hessian, where, most_steps, tolerance, dense, method)


def search_from(
    hessian: Hessian,
    start: Tensor,
    most_steps: int = 100,
    tolerance: float = 1e-8,
    dense: bool | None = None,
    method: Method = "newton-mr",
    stop: Callable[[], bool] = lambda: False,
) -> Found:
    """The same with a Hessian at hand, which is moved: it is left at the point found. Arguments as of `search`; `stop`
    is asked before every step, so that a clock may end the search."""
    _check(most_steps, tolerance, method)
    place = _Place(hessian, _checked(hessian, start, dense), hessian.size <= DENSE if dense is None else dense)
    slopes, radius = place.move(place.parameters), REACH * place.length
    squares = [slopes.norm**2]
    while slopes.norm > tolerance and len(squares) <= most_steps and not _stalled(squares) and not stop():
        step, rest = place.step(slopes.gradient, radius, method)
        taken, square = place.backtracked(step, rest, slopes)
        if not taken:
            break
        promised, kept = slopes.norm**2 - float(rest @ rest), slopes.norm**2 - square
        radius = _next_radius(radius, taken, taken * float(step.norm()), kept, promised)
        slopes = place.move(place.parameters + taken * step)
        squares.append(slopes.norm**2)
    return _judged(place, slopes, tuple(squares), tolerance)


class _Place:
    """A Hessian on its way: where it stands, and what was spent."""

    def __init__(self, hessian: Hessian, start: Tensor, dense: bool) -> None:
        self.hessian, self.parameters, self.dense = hessian, start, dense
        self.spent, self.gradients, self.scale = hessian.products, 0, 0.0

    @property
    def length(self) -> float:
        """‖θ‖, one at least."""
        return max(1.0, float(self.parameters.norm()))

    def move(self, parameters: Tensor) -> Slopes:
        """Stand there. Graphs hang on the parameters they were made of: they are let go."""
        self.hessian.release()
        self.hessian.flat.write(parameters)
        self.parameters = parameters
        self.gradients += 1
        return self.hessian.slopes()

    def step(self, gradient: Tensor, radius: float, method: Method) -> tuple[Tensor, Tensor]:
        """(p, −H p − g)."""
        if method == "descent":
            return self.steepest(gradient)
        newton = self.newton(gradient, radius)
        return newton.x, newton.rest

    def newton(self, gradient: Tensor, radius: float) -> Solution:
        """argmin ‖H p + g‖ over ‖p‖ ≤ radius."""
        if self.dense:
            return pseudo_inverse(dense(self.hessian), -gradient, longest=radius)
        solution = minres(self.hessian, -gradient, INEXACT, min(self.hessian.size, MOST), longest=radius)
        self.scale = solution.scale or self.scale
        return solution

    def steepest(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """argmin ‖H p + g‖ along −H g, and what it leaves. Two products."""
        down = -self.hessian(gradient)
        bent = self.hessian(down)
        square = float(bent @ bent)
        length = -float(gradient @ bent) / square if square else 0.0
        return length * down, -gradient - length * bent

    def backtracked(self, step: Tensor, rest: Tensor, slopes: Slopes) -> tuple[float, float]:
        """The first α that lowers ‖g‖² enough, 0 if none does, and ‖g(θ + αp)‖².

        p·Hg = g·Hp, and Hp = −g − rest is known from the step. The next α is where a parabola through what is known has
        its minimum, kept within a tenth and a half of the last."""
        square, alpha = slopes.norm**2, 1.0
        slope = 2 * float(slopes.gradient @ (-slopes.gradient - rest))
        if slope >= 0:
            return 0.0, square
        for _ in range(HALVINGS):
            now = float(self.hessian.gradient_at(step, alpha).square().sum())
            self.gradients += 1
            if now <= square + ARMIJO * alpha * slope and now < square:
                return alpha, now
            lowest = -slope * alpha**2 / (2 * (now - square - slope * alpha)) if now < float("inf") else 0.0
            alpha = min(max(lowest, alpha / 10), alpha / 2)
        return 0.0, square


def _next_radius(radius: float, taken: float, length: float, kept: float, promised: float) -> float:
    """More where ‖g‖² fell by at least half of what ‖H p + g‖² promised, less where by next to nothing of it."""
    if taken < 1.0:
        return length
    if kept > 0.5 * promised:
        return max(radius, 2.5 * length)
    return length / 2 if kept < 0.1 * promised else radius


def _stalled(squares: list[float]) -> bool:
    return len(squares) > PATIENCE and squares[-1] > (1 - STALLED) * squares[-1 - PATIENCE]


def _judged(place: _Place, slopes: Slopes, squares: tuple[float, ...], tolerance: float) -> Found:
    """The record of where the search ended."""
    gradient, norm = slopes.gradient, slopes.norm
    values = None
    if place.hessian.size <= MOST_DENSE:
        matrix = dense(place.hessian)
        step = pseudo_inverse(matrix, -gradient, longest=place.length)
        values, shares, ends = counted_spectrum(matrix, norm)
    else:
        step = place.newton(gradient, place.length)
        shares, ends = estimated_spectrum(place.hessian, place.scale, norm)
    scale = max(place.scale if values is None else 0.0, *map(abs, ends))
    bent = float(place.hessian(gradient).norm())
    outcome = CRITICAL if norm <= tolerance else FLAT if step.relative > RESIDUAL else RAN_OUT
    return Found(
        place.parameters, slopes.loss, norm, squares, outcome, step.relative,
        bent / (scale * norm) if scale * norm else (0.0 if norm else math.nan),
        values, shares, ends, scale, place.hessian.products - place.spent, place.gradients,
    )  # fmt: skip


def _check(most_steps: int, tolerance: float, method: str) -> None:
    if most_steps < 1:
        raise BadArgument(f"search: `most_steps` must be at least 1, got {most_steps}")
    if not tolerance > 0:
        raise BadArgument(f"search: `tolerance` must be above 0, got {tolerance}; in float64 1e-8 is within reach")
    if method not in get_args(Method):
        raise BadArgument(f"search: `method` must be one of {', '.join(get_args(Method))}, got {method!r}")


def _checked(hessian: Hessian, start: Tensor, dense: bool | None) -> Tensor:
    if start.shape != (hessian.size,) or not bool(torch.isfinite(start).all()):
        raise BadArgument(
            f"search: `start` must be a finite vector of the {hessian.size} trainable parameters, got "
            f"{list(start.shape)}; `starts(problem, …)` gives some"
        )
    if dense and hessian.size > MOST_DENSE:
        raise BadArgument(
            f"search: `dense` must be False above {MOST_DENSE} parameters, got {hessian.size}: the Hessian would take "
            f"{hessian.size**2 * 8 / 2**30:.1f} GiB"
        )
    return start.to(hessian.flat.device, torch.float64)
