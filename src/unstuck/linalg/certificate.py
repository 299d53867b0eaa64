"""Where eigenvalues can hide: bounds on the spectrum from one Lanczos run with a random start, at no further product.

The Lanczos vectors are v_{m+1} = p(A) v₁ with

    p(t) = (t − θ₁) … (t − θ_m) / (β₁ … β_m),        1 = ‖v_{m+1}‖² = Σ γⱼ² p(λⱼ)²

γⱼ the start's component along eigenvector j. So |p(λⱼ)| ≤ 1/|γⱼ|, and |γⱼ| ≥ η(δ) with probability 1 − δ for a start
drawn uniformly from the sphere: λⱼ lies where |p| ≤ 1/η (van Dorsselaer, Hochstenbach & van der Vorst 1999). Outside of
the Ritz values p grows without bound, so λmin and λmax are caught; between two Ritz values that have converged it is
huge as well, so nothing hides there, unless a start without a share in it (probability δ) or an exact repetition of an
eigenvalue that is found.

    low, high = bounds(ritz, failure=0.01)      # λmin ≥ low, and λmax ≤ high, each with probability ≥ 0.99

The event |γⱼ| ≥ η does not depend on m: the bounds hold for every m at once, so one may stop when they please. They
hold for plain Lanczos (no blocks), one fixed operator and full reorthogonalization. Rounding: what was computed is
exact for A + E, so `rounding` ≥ ‖E‖ is taken off both ends (Weyl).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import betaincinv
from torch import Tensor

from unstuck.errors import BadArgument
from unstuck.linalg.lanczos import Ritz

LOST = 10.0
"""Of ε ‖A‖: what `lanczos` takes for nothing."""

STEPS = 60
"""Halvings of a gap: distances down to 1e-18 of it are told apart."""


@dataclass(frozen=True)
class Ends:
    """λmin in [low, least] and λmax in [most, high], each failing with probability `failure` at most; `rounding` is
    contained."""

    low: float
    least: float
    most: float
    high: float
    failure: float
    rounding: float


def bounds(ritz: Ritz, failure: float, rounding: float = 0.0) -> Ends:
    """Intervals for both ends of the spectrum. Costs no product.

    Raises BadArgument for a block Lanczos or a `failure` outside of (0, 1).
    """
    _check(ritz, failure)
    values = ritz.values
    least, most = float(values[0]), float(values[-1])
    if _known(ritz):
        return Ends(least - rounding, least + rounding, most - rounding, most + rounding, failure, rounding)
    target = -_log_share(ritz.size, failure)
    below = _beyond(values, _log_steps(ritz), target, -1.0)
    above = _beyond(values, _log_steps(ritz), target, +1.0)
    return Ends(least - below - rounding, least + rounding, most - rounding, most + above + rounding, failure, rounding)


def neighbourhoods(ritz: Ritz, failure: float) -> Tensor:
    """How far around each Ritz value an eigenvalue may lie: [m, 2], distances below and above (`inf`: the gap is open).

    An eigenvalue is outside of all these intervals with probability `failure` at most.
    Raises BadArgument like `bounds`.
    """
    _check(ritz, failure)
    values, steps = ritz.values, _log_steps(ritz)
    if _known(ritz):
        return torch.zeros(len(values), 2, dtype=torch.float64)
    target = -_log_share(ritz.size, failure)
    gaps = values.diff()
    sides = torch.full((len(values), 2), math.inf, dtype=torch.float64)
    sides[0, 0], sides[-1, 1] = _beyond(values, steps, target, -1.0), _beyond(values, steps, target, +1.0)
    fractions = torch.exp2(-torch.arange(1, STEPS, dtype=torch.float64))
    for i, gap in enumerate(gaps.tolist()):
        for place, side, sign in ((i, 1, 1.0), (i + 1, 0, -1.0)):
            distances = gap * fractions
            high = _log_polynomial(values, steps, values[place] + sign * distances) > target
            if bool(high.any()):
                sides[place, side] = float(distances[high].min())
    return sides


def share(size: int, failure: float) -> float:
    """η: |γ| of a fixed direction for a start uniform on the sphere in `size` dimensions is below it with probability
    `failure` (γ² is Beta(1/2, (size − 1)/2))."""
    return math.exp(_log_share(size, failure))


def _check(ritz: Ritz, failure: float) -> None:
    if ritz.block != 1:
        raise BadArgument(f"bounds: `ritz` must come from plain Lanczos, got blocks of {ritz.block}")
    if not 0 < failure < 1:
        raise BadArgument(f"bounds: `failure` must be a probability between 0 and 1, got {failure!r}")


def _known(ritz: Ritz) -> bool:
    """True if nothing is left to hide: the space is the whole one, or a random start was sent to 0 (then A is 0)."""
    return ritz.products >= ritz.size or (ritz.scale == 0.0 and not bool(ritz.leaves.any()))


def _log_share(size: int, failure: float) -> float:
    return 0.5 * math.log(float(betaincinv(0.5, (size - 1) / 2, failure))) if size > 1 else 0.0


def _log_steps(ritz: Ritz) -> float:
    """log(β₁ … β_m); a last β lost in rounding counts as rounding: an eigenvalue may be as near as that."""
    inner = torch.diagonal(ritz.projection, 1).abs()
    least = LOST * torch.finfo(ritz.basis.dtype).eps * max(ritz.scale, 1e-300)
    return float(inner.log().sum()) + math.log(max(float(ritz.leaves.abs().max()), least))


def _log_polynomial(values: Tensor, log_steps: float, at: Tensor) -> Tensor:
    """log |p| at the points `at`."""
    return (at.unsqueeze(-1) - values).abs().log().sum(-1) - log_steps


def _beyond(values: Tensor, log_steps: float, target: float, sign: float) -> float:
    """The distance outside of the outermost Ritz value at which |p| reaches exp(target): p is monotone there."""
    edge = values[-1] if sign > 0 else values[0]
    spread = max(float(values[-1] - values[0]), abs(float(edge)), 1e-300)

    def grown(distance: float) -> bool:
        at = edge + sign * torch.tensor([distance], dtype=torch.float64)
        # distance to the outermost value itself is exact, whatever its size
        rest = values[:-1] if sign > 0 else values[1:]
        return float(_log_polynomial(rest, log_steps, at)) + math.log(distance) > target

    high = spread
    while not grown(high):
        high *= 2
    low = high
    while grown(low) and low > 1e-18 * spread:
        low /= 2
    for _ in range(20):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if grown(middle) else (middle, high)
    return high
