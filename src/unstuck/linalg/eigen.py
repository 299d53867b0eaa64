"""Extreme eigenvalues to a tolerance, by Lanczos that stops by itself and says how far it can be wrong.

Two figures decide when to stop, both for nothing:

    estimate      r² / gap, r the Ritz pair's residual, gap the distance to the next Ritz value: the error of a Ritz
                  value as Kato and Temple bound it (Parlett 1998, §10.5), were the next Ritz value an eigenvalue
    certificate   the interval of `linalg.certificate`: no eigenvalue further out, but with probability `failure`

The estimate alone can settle on the second eigenvalue when the start has almost no share in the first; so the interval
has to close as well, to `CERTIFIED` tolerances: it is far wider than the true error, and to wait until it is as narrow
as the tolerance costs up to twice the products. (At 5 tolerances one start of seven on a transformer settled on the
second eigenvalue, 1 % above the first; at 10 two of four did.) Both are in the answer.

    ends = extremes(matvec, start, want="min", tolerance=1e-2)
    ends.values, ends.intervals, ends.errors
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unstuck.errors import BadArgument
from unstuck.linalg.certificate import Ends, bounds, neighbourhoods
from unstuck.linalg.lanczos import Matvec, Ritz, lanczos

CERTIFIED = 3.0
MARGIN = 0.5
"""Of the tolerance, what the estimate must be below."""

Want = Literal["min", "max", "both"]


@dataclass(frozen=True)
class Eigen:
    """Eigenvalues that were asked for, ascending, with estimated `errors`, certified `intervals` [low, high] (wrong
    with probability `failure` each) and unit `vectors` [k, n]. `converged` is False where `most` products did not
    suffice; `ritz` is where Lanczos stopped."""

    values: tuple[float, ...]
    errors: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    vectors: Tensor
    products: int
    converged: bool
    failure: float
    scale: float
    ritz: Ritz


def extremes(
    matvec: Matvec,
    start: Tensor,
    want: Want = "both",
    tolerance: float = 1e-2,
    failure: float = 0.01,
    most: int = 200,
    rounding: float = 0.0,
) -> Eigen:
    """λmin, λmax or both, to `tolerance` of each one's own size; `start` random, normal.

    `rounding`: relative error of a product. Costs one product a step. Raises BadArgument for another `want`.
    """
    if want not in ("min", "max", "both"):
        raise BadArgument(f"extremes: `want` must be 'min', 'max' or 'both', got {want!r}")

    def enough(ritz: Ritz) -> bool:
        if len(ritz.values) < 3 or not all(_near(ritz, i, tolerance) for i in _places(want, ritz)):
            return False
        return all(_closed(bounds(ritz, failure), side, CERTIFIED * tolerance) for side in _sides(want))

    ritz = lanczos(matvec, start, enough, most)
    done = ritz.exhausted or enough(ritz)
    ends = bounds(ritz, failure, blur(ritz, rounding))
    intervals = {"min": [(ends.low, ends.least)], "max": [(ends.most, ends.high)]}
    chosen = intervals.get(want, intervals["min"] + intervals["max"])
    return _answer(ritz, _places(want, ritz), chosen, done, failure)


def largest(
    matvec: Matvec,
    start: Tensor,
    count: int,
    tolerance: float = 1e-3,
    failure: float = 0.01,
    most: int = 400,
    rounding: float = 0.0,
) -> Eigen:
    """The `count` largest eigenvalues, each to `tolerance` of its own size (pass −A and negate for the smallest).

    Nothing between them is missed but with probability `failure` each, or an exact repetition. Raises BadArgument for
    a `count` that is not between 1 and n.
    """
    size = start.shape[-1]
    if not 1 <= count <= size:
        raise BadArgument(f"largest: `count` must be between 1 and {size}, the dimension, got {count}")

    def enough(ritz: Ritz) -> bool:
        here = len(ritz.values)
        if here < count + 1 or not all(_near(ritz, i, tolerance) for i in range(here - count, here)):
            return False
        sides = neighbourhoods(ritz, failure)[here - count :, 1]
        return bool((sides <= CERTIFIED * tolerance * ritz.values[here - count :].abs()).all())

    ritz = lanczos(matvec, start, enough, most)
    here = len(ritz.values)
    places = tuple(range(max(0, here - count), here))
    sides, extra = neighbourhoods(ritz, failure), blur(ritz, rounding)
    values = ritz.values
    intervals = [
        (float(values[i] - ritz.residuals[i]) - extra, float(values[i] + sides[i, 1]) + extra) for i in places
    ]
    return _answer(ritz, places, intervals, ritz.exhausted or enough(ritz), failure)


def random_start(size: int, dtype: torch.dtype, device: torch.device | str = "cpu", seed: int = 0) -> Tensor:
    """A normal vector [n]: its direction is uniform on the sphere."""
    start = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return start.to(device, dtype)


def blur(ritz: Ritz, rounding: float) -> float:
    """How far rounding can have moved eigenvalues: √m · rounding · ‖A‖ (the errors of m products, Weyl)."""
    return math.sqrt(ritz.products) * rounding * ritz.scale


def error_estimate(ritz: Ritz, place: int) -> float:
    """r² / gap of a Ritz value, at most r itself."""
    values, residual = ritz.values, float(ritz.residuals[place])
    gaps = [float((values[place] - values[k]).abs()) for k in (place - 1, place + 1) if 0 <= k < len(values)]
    gap = min(gaps, default=0.0)
    return min(residual, residual**2 / gap) if gap > 0 else residual


def _near(ritz: Ritz, place: int, tolerance: float) -> bool:
    return error_estimate(ritz, place) <= MARGIN * tolerance * abs(float(ritz.values[place]))


def _closed(ends: Ends, side: str, tolerance: float) -> bool:
    if side == "min":
        return ends.least - ends.low <= tolerance * abs(ends.least)
    return ends.high - ends.most <= tolerance * abs(ends.most)


def _sides(want: str) -> tuple[str, ...]:
    return ("min", "max") if want == "both" else (want,)


def _places(want: str, ritz: Ritz) -> tuple[int, ...]:
    last = len(ritz.values) - 1
    return {"min": (0,), "max": (last,), "both": (0, last)}[want]


def _answer(
    ritz: Ritz, places: tuple[int, ...], intervals: list[tuple[float, float]], done: bool, failure: float
) -> Eigen:
    return Eigen(
        values=tuple(float(ritz.values[i]) for i in places),
        errors=tuple(error_estimate(ritz, i) for i in places),
        intervals=tuple(intervals),
        vectors=ritz.vectors(*places),
        products=ritz.products,
        converged=done,
        failure=failure,
        scale=ritz.scale,
        ritz=ritz,
    )
