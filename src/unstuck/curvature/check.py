"""Is a Hessian product right? Asked once per problem, on a few rows, before anything is built on it.

    symmetry      |u·Hv − v·Hu| / (‖Hu‖ + ‖Hv‖), ‖u‖ = ‖v‖ = 1     0 for any Hessian; an asymmetric one is none
    agreement     ‖Hv − D‖ / ‖Hv‖                                   D: central differences of gradients in float64
    rounding      ‖Hv − H₆₄v‖ / ‖H₆₄v‖                              what the working precision costs

Differences are taken with ever smaller steps until two agree: across a kink (ReLU, max-pooling) a difference is wrong
by a jump over the step's length, and in float32 no step is small enough (300 % off on a small CNN, measured). Symmetry
was 1e-8 to 1e-6 where the product was right and above 2e-3 where it was wrong (float32, measured).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.curvature.batches import Data, rows
from unstuck.curvature.product import DIFFERENCES, Hessian
from unstuck.problem import batch_size
from unstuck.sandbox import sandbox

ROWS = 16
"""Rows the check is made on: a wrong formula is wrong on few as on many."""

SYMMETRY = {torch.float64: 1e-6, torch.float32: 5e-4}
AGREEMENT = {torch.float64: 1e-3, torch.float32: 2e-2}
"""Between what was seen right and wrong (see above)."""

DIFFERENCES_SYMMETRY = {torch.float64: 1e-4, torch.float32: 5e-3}
STEPS = {torch.float64: (1e-6, 1e-7, 1e-8, 1e-9), torch.float32: (1e-2, 2.5e-3, 6e-4)}
"""Steps of differences to try, in lengths of the parameter vector (one at least)."""

OTHER_NOISE = 1e-2
"""A product that differs more from its float64 counterpart met other random numbers, not rounding."""

RAISED = (RuntimeError, TypeError, ValueError, NotImplementedError)
"""What torch, or the user's model in another precision, raises where something is not possible."""


@dataclass(frozen=True)
class Check:
    """What was found; NaN where a figure could not be had. `way`: how the product was made, in which precision.
    `step`: of differences, where two agreed. `why`: empty, or what failed."""

    way: str
    symmetry: float = math.nan
    agreement: float = math.nan
    rounding: float = math.nan
    step: float = math.nan
    why: str = ""


def check(hessian: Hessian) -> Check:
    """The check of a reverse-over-reverse product, or of differences. Some ten gradients of `ROWS` rows in float64; for
    differences some ten gradients of the whole data."""
    return _of_differences(hessian) if hessian.way == DIFFERENCES else _of_reverse(hessian)


def _of_reverse(hessian: Hessian) -> Check:
    few = _few_rows(hessian)
    small = Hessian(hessian.problem, few, hessian.last, hessian.double)
    try:
        odd, product = symmetry(small, small.size, small.flat.dtype)
    except RAISED as error:
        return Check(hessian.way, why=f"no second derivative ({first_line(error)})")
    limit = SYMMETRY[small.flat.dtype]
    if not odd <= limit:
        return Check(hessian.way, odd, why=f"u·Hv and v·Hu differ by {odd:.1e} of their size")
    precise = _in_float64(hessian, few)
    agreement, rounding, step = _against_differences(precise, product)
    wrong = agreement > AGREEMENT[torch.float64]
    if math.isnan(agreement) and math.isnan(rounding):
        agreement, step = _against_own(small, product)
        wrong = agreement > AGREEMENT[small.flat.dtype]
    if not wrong and (false := _not_of_the_loss(precise)):
        return Check(hessian.way, odd, agreement, rounding, step, false)
    return Check(
        hessian.way, odd, agreement, rounding, step,
        f"central differences of gradients differ by {100 * agreement:.2g} %" if wrong else "",
    )  # fmt: skip


def _in_float64(hessian: Hessian, few: Data) -> Hessian | None:
    """The same on these rows in float64, or None where the model cannot be run there."""
    try:
        return Hessian(hessian.problem, few, hessian.last, double=True)
    except Exception:
        return None


def _against_differences(precise: Hessian | None, product: Tensor) -> tuple[float, float, float]:
    """(agreement, rounding, step) in float64; NaN for a model that cannot be run there, or where no step settles."""
    if precise is None:
        return math.nan, math.nan, math.nan
    try:
        v = directions(precise.size, torch.float64)[1]
        exact = precise(v)
        if float(exact.norm()) == 0.0:
            return float(float(precise.difference(v, 1e-6 * _length(precise)).norm()) > 1e-6), 0.0, math.nan
        found, step = settled(precise.difference, v, _length(precise), exact)
    except Exception:
        return math.nan, math.nan, math.nan
    rounding = apart(product.double(), exact)
    agreement = math.nan if math.isnan(step) else apart(found, exact)
    return agreement, rounding if rounding < OTHER_NOISE else math.nan, step


def _against_own(small: Hessian, product: Tensor) -> tuple[float, float]:
    """(agreement, step) in the precision at hand, for a model that knows no other."""
    found, step = settled(small.difference, directions(small.size, small.flat.dtype)[1], _length(small), product)
    return (math.nan if math.isnan(step) else apart(found, product)), step


def _not_of_the_loss(precise: Hessian | None) -> str:
    """Words, where the loss does not rise along its gradient as the gradient says."""
    if precise is None:
        return ""
    try:
        slopes = precise.slopes()
    except Exception:
        return ""
    step = 1e-6 * _length(precise)
    gradient = precise.flat.movable(slopes.gradient)
    norm = float(gradient.norm())
    if norm * step <= 1e-10 * abs(slopes.loss):
        return ""
    losses = precise.losses_at(gradient / norm, [step, -step])
    ahead, behind = losses @ torch.tensor(precise.data.weights, dtype=torch.float64)
    slope = float(ahead - behind) / (2 * step)
    return "" if abs(slope - norm) <= 1e-3 * norm else (
        f"the gradient is not that of the loss: along it the loss rises by {slope:.3g}, not {norm:.3g} (a detached"
        " tensor, a gradient passed straight through, reversed or scaled)"
    )


def _of_differences(hessian: Hessian) -> Check:
    dtype = hessian.flat.dtype
    way = f"{hessian.way} in {str(dtype).removeprefix('torch.')}"
    try:
        v = directions(hessian.size, dtype)[1]
        _, step = settled(hessian.difference, v, _length(hessian))
        if math.isnan(step):
            return Check(way, why="no two steps give the same difference: kinks, or rounding, outweigh the curvature")
        hessian.step = step
        odd, _ = symmetry(hessian, hessian.size, dtype)
    except RAISED as error:
        return Check(way, why=first_line(error))
    limit = DIFFERENCES_SYMMETRY[dtype]
    if odd <= limit and (false := _not_of_the_loss(_in_float64(hessian, _few_rows(hessian)))):
        return Check(way, odd, step=step, why=false)
    return Check(way, odd, step=step, why="" if odd <= limit else f"u·Hv and v·Hu differ by {odd:.1e} of their size")


def symmetry(product: Callable[[Tensor], Tensor], size: int, dtype: torch.dtype) -> tuple[float, Tensor]:
    """How far u·Hv is from v·Hu for random u, v; and Hv. Two products."""
    u, v = directions(size, dtype)
    hu, hv = product(u), product(v)
    u, v = u.to(hu.device), v.to(hu.device)
    scale = float(hu.norm() + hv.norm())
    return (size**0.5 * abs(float(u @ hv - v @ hu)) / scale if scale else 0.0), hv


def settled(
    difference: Callable[[Tensor, float], Tensor], v: Tensor, length: float, expected: Tensor | None = None
) -> tuple[Tensor, float]:
    """Differences of ever smaller steps until two agree, or one agrees with what is `expected`: (it, its step).

    The step is NaN where none do. Two gradients a step; `v` has length one, `length` is that of the parameters.
    """
    previous = None
    for share in STEPS[v.dtype]:
        now = difference(v, share * length)
        known = [one for one in (expected, previous) if one is not None]
        if any(apart(one, now) <= AGREEMENT[v.dtype] for one in known):
            return now, share * length
        previous = now
    return now, math.nan


def apart(first: Tensor, second: Tensor) -> float:
    """‖first − second‖ over the larger of their norms; 0 for two zeros."""
    scale = max(float(first.norm()), float(second.norm()))
    return float((first - second).norm()) / scale if scale else 0.0


def directions(size: int, dtype: torch.dtype) -> Tensor:
    """Two random directions of length one [2, n], always the same."""
    pair = torch.randn(2, size, generator=torch.Generator().manual_seed(0)).to(dtype)
    pair /= pair.norm(dim=1, keepdim=True)
    return pair


def first_line(error: BaseException) -> str:
    """The beginning of an error's message."""
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def _length(hessian: Hessian) -> float:
    return max(1.0, float(hessian.flat.values().norm()))


def _few_rows(hessian: Hessian) -> Data:
    """Some rows of the first batch, where the program takes fewer than it was recorded with; else all."""
    with sandbox():
        batch = tuple(next(iter(hessian.data.batches)))
    if batch_size(batch) > ROWS:
        few = rows(batch, slice(0, ROWS))
        try:
            hessian.value(few)
            batch = few
        except Exception:  # the user's program, with the batch's size written into it
            pass
    return Data((batch,), (batch_size(batch) or 1,), (1.0,), hessian.data.reduction, (0,))
