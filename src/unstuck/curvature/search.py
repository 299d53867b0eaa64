"""Critical points of any kind (minima, saddles, maxima) from any state: Newton-MR on the squared gradient norm.

    minimize ‖g(θ)‖²,  g = ∇L:      p = argmin ‖H p + g‖  over  ‖p‖ ≤ radius,      θ ← θ + α p

α is backtracked from 1 until ‖g(θ + αp)‖² ≤ ‖g‖² + 2ρα p·Hg (Roosta, Liu, Xu & Mahoney 2019). Unlike a Newton step p
lowers ‖g‖² whatever the signs and zeros among H's eigenvalues, so that saddles attract as minima do.

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
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unstuck.curvature.flat import Flat
from unstuck.curvature.forward import twin_at
from unstuck.curvature.measure import measurable
from unstuck.curvature.product import Hessian, Slopes
from unstuck.errors import BadArgument
from unstuck.linalg.minres import Solution, minres, pseudo_inverse
from unstuck.problem import Problem

CRITICAL, FLAT, RAN_OUT = "critical", "gradient-flat", "ran out"

RESIDUAL = 0.9
"""Gradient-flat where the best step leaves more than this share of the gradient in H p + g (Frye et al. 2021). That
steps are bounded is ours: an eigenvalue of 1e-12 solves the equation too, by a step that no quadratic model covers."""

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

LEAST_NOISE = 0.01
"""The smallest noise of a start, over the root mean square of the parameters."""

ZERO = 1e-6
"""Eigenvalues below this share of the largest are rounding."""


@dataclass(frozen=True)
class Found:
    """Where a search ended.

    parameters     θ [n], float64, as of `Flat`
    loss, gradient the loss and ‖∇L‖ there
    squares        ‖∇L‖² at the start and after every step
    outcome        critical (‖∇L‖ ≤ tolerance), gradient-flat (`relative` above 0.9 while ‖∇L‖ > tolerance), or ran out
                   (of steps, or of steps that lower ‖∇L‖² any further)
    relative       min ‖H p + g‖ / ‖g‖ over steps up to the parameters' own length (one at least): what no step mends
    flatness       ‖H g‖ / (‖H‖ ‖g‖), 0 where the gradient lies in the kernel (NaN for g = 0)
    eigenvalues    [n] of H, ascending; None above 2 000 parameters
    scale          ‖H‖
    products, gradients   spent, in Hessian-vector products and gradients
    """

    parameters: Tensor
    loss: float
    gradient: float
    squares: tuple[float, ...]
    outcome: str
    relative: float
    flatness: float
    eigenvalues: Tensor | None
    scale: float
    products: int
    gradients: int

    @property
    def steps(self) -> int:
        """Steps taken."""
        return len(self.squares) - 1

    @property
    def zero(self) -> float:
        """Size below which an eigenvalue's sign says nothing: max(10⁻⁶‖H‖, √(‖H‖‖∇L‖)), as in the second-order
        conditions of Nesterov & Polyak (2006), the third derivative taken to be of the size of the second."""
        return max(ZERO * self.scale, math.sqrt(self.scale * self.gradient))

    @property
    def index(self) -> int | None:
        """Number of eigenvalues below −`zero`: 0 at a minimum, n at a maximum. None where they are not known.

        It is the index of the point returned. At a degenerate critical point (a monkey saddle) eigenvalues that are
        zero at the point itself are small and of either sign beside it."""
        return None if self.eigenvalues is None else int((self.eigenvalues < -self.zero).sum())

    @property
    def share(self) -> float | None:
        """Index over the number of parameters."""
        return None if self.eigenvalues is None else int(self.index or 0) / len(self.eigenvalues)


def search(
    problem: Problem,
    start: Tensor | None = None,
    most_steps: int = 100,
    tolerance: float = 1e-8,
    seed: int = 0,
    dense: bool | None = None,
) -> Found:
    """From `start` [n] to a critical point of the mean loss, in float64.

    start        parameters in the order of `Flat`; left out: one of `starts(problem, …, seed)`
    most_steps   steps at most; a search that stalls ends before
    tolerance    critical where ‖∇L‖ ≤ tolerance (absolute, in units of loss over parameter)
    dense        find steps from the whole Hessian (n products and O(n³) flops a step) instead of at most 300 products;
                 left out: up to 200 parameters

    A step costs its products, and a gradient for each backtracking and for the move. The point is exact to about
    `gradient` over the smallest non-zero |eigenvalue|. A gradient may also vanish at infinity (classes that can be
    separated): it passes any tolerance on the way out. Across kinks (ReLU) H is not the derivative of g, and the search
    may stand still at once. For several searches: `measurable`, then `search_from` for each of `starts`.

    Raises BadArgument for a start of another size or not finite, `most_steps` < 1, `tolerance` not above 0, or `dense`
    above 2 000 parameters; NotMeasurable where there are no second derivatives, or no finite loss at the start.

        search(problem, start, most_steps=50).outcome
    """
    _check(most_steps, tolerance)
    hessian, _ = measurable(problem, double=True)
    where = starts(problem, 1, seed)[0] if start is None else start
    return search_from(hessian, where, most_steps, tolerance, dense)


def search_from(
    hessian: Hessian, start: Tensor, most_steps: int = 100, tolerance: float = 1e-8, dense: bool | None = None
) -> Found:
    """The same with a Hessian at hand, which is moved: it is left at the point found. Arguments as of `search`."""
    _check(most_steps, tolerance)
    place = _Place(hessian, _checked(hessian, start, dense), hessian.size <= DENSE if dense is None else dense)
    slopes, radius = place.move(place.parameters), REACH * place.length
    squares = [slopes.norm**2]
    while slopes.norm > tolerance and len(squares) <= most_steps and not _stalled(squares):
        newton = place.newton(slopes.gradient, radius, place.matrix() if place.dense else None)
        taken, square = place.backtracked(newton, slopes)
        if not taken:
            break
        radius = _next_radius(radius, newton, taken, square)
        slopes = place.move(place.parameters + taken * newton.x)
        squares.append(slopes.norm**2)
    return _judged(place, slopes, tuple(squares), tolerance)


def starts(problem: Problem, count: int, seed: int = 0) -> Tensor:
    """`count` places [count, n] to search from, float64, near the way the training went and around it. No gradient.

        θ = (1 − t) θ_a + t θ_b + σ s ∘ ξ        t uniform, σ log-uniform in [0.01, 1], ξ standard normal

    θ_a, θ_b: two of the states known (the first, those between, the last). s: root mean square of each parameter tensor
    at the last. Raises BadArgument for `count` < 1.
    """
    if count < 1:
        raise BadArgument(f"starts: `count` must be at least 1, got {count}")
    known = [replace(problem, last=state) for _, state in problem.loop.snapshots]
    flats = [Flat(twin_at(case, last, True)) for case, last in ((problem, False), *((k, True) for k in known))]
    flats.append(Flat(twin_at(problem, True, True)))
    values, scale = [flat.values() for flat in flats], _scale(flats[-1])
    generator, drawn = torch.Generator().manual_seed(seed), []
    for _ in range(count):
        first, second = torch.randint(len(values), (2,), generator=generator).tolist()
        t, power = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        noise = torch.randn(len(scale), generator=generator, dtype=torch.float64).to(scale.device)
        drawn.append(values[first].lerp(values[second], t) + LEAST_NOISE ** (1 - power) * scale * noise)
    return torch.stack(drawn)


def _scale(flat: Flat) -> Tensor:
    """The root mean square of each parameter's tensor [n]; of all of them where one is zero, 1 where all are."""
    means = torch.cat([part.square().mean().sqrt().expand(part.numel()) for part in flat.split(flat.values())])
    whole = float(flat.values().square().mean().sqrt()) or 1.0
    return flat.movable(means.masked_fill(means == 0, whole))


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

    def newton(self, gradient: Tensor, radius: float, matrix: Tensor | None = None) -> Solution:
        """argmin ‖H p + g‖ over ‖p‖ ≤ radius; from the whole H if it is given."""
        if matrix is not None:
            return pseudo_inverse(matrix, -gradient, longest=radius)
        solution = minres(self.hessian, -gradient, INEXACT, min(self.hessian.size, MOST), longest=radius)
        self.scale = solution.scale or self.scale
        return solution

    def backtracked(self, newton: Solution, slopes: Slopes) -> tuple[float, float]:
        """The first α that lowers ‖g‖² enough, 0 if none does, and ‖g(θ + αp)‖².

        p·Hg = g·Hp, and Hp = −g − rest is known from the step. The next α is where a parabola through what is known has
        its minimum, kept within a tenth and a half of the last."""
        square, alpha = slopes.norm**2, 1.0
        slope = 2 * float(slopes.gradient @ (-slopes.gradient - newton.rest))
        if slope >= 0:
            return 0.0, square
        for _ in range(HALVINGS):
            now = float(self.hessian.gradient_at(newton.x, alpha).square().sum())
            self.gradients += 1
            if now <= square + ARMIJO * alpha * slope and now < square:
                return alpha, now
            lowest = -slope * alpha**2 / (2 * (now - square - slope * alpha)) if now < float("inf") else 0.0
            alpha = min(max(lowest, alpha / 10), alpha / 2)
        return 0.0, square

    def matrix(self) -> Tensor:
        """H [n, n]; n products."""
        whole = self.hessian(torch.eye(self.hessian.size, dtype=torch.float64, device=self.parameters.device))
        return (whole + whole.T) / 2


def _next_radius(radius: float, newton: Solution, taken: float, square: float) -> float:
    """More where ‖g‖² fell at least half as far as ‖H p + g‖² said, less where it fell by next to nothing."""
    length = taken * float(newton.x.norm())
    if taken < 1.0:
        return length
    promised, kept = newton.right**2 - newton.residual**2, newton.right**2 - square
    if kept > promised / 2:
        return max(radius, 2.5 * length)
    return length / 2 if kept < promised / 10 else radius


def _stalled(squares: list[float]) -> bool:
    return len(squares) > PATIENCE and squares[-1] > (1 - STALLED) * squares[-1 - PATIENCE]


def _judged(place: _Place, slopes: Slopes, squares: tuple[float, ...], tolerance: float) -> Found:
    """The record of where the search ended."""
    gradient, norm = slopes.gradient, slopes.norm
    matrix = place.matrix() if place.hessian.size <= MOST_DENSE else None
    newton = place.newton(gradient, place.length, matrix)
    values = None if matrix is None else torch.linalg.eigvalsh(matrix)
    scale = place.scale if values is None else float(values.abs().max())
    bent = float(place.hessian(gradient).norm())
    outcome = CRITICAL if norm <= tolerance else FLAT if newton.relative > RESIDUAL else RAN_OUT
    return Found(
        place.parameters, slopes.loss, norm, squares, outcome, newton.relative,
        bent / (scale * norm) if scale * norm else (0.0 if norm else math.nan),
        values, scale, place.hessian.products - place.spent, place.gradients,
    )  # fmt: skip


def _check(most_steps: int, tolerance: float) -> None:
    if most_steps < 1:
        raise BadArgument(f"search: `most_steps` must be at least 1, got {most_steps}")
    if not tolerance > 0:
        raise BadArgument(f"search: `tolerance` must be above 0, got {tolerance}; in float64 1e-8 is within reach")


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
