"""Both ends of a Hessian's spectrum, as intervals that say how sure they are.

Exactly, from the dense matrix, for models of up to 4 000 parameters; else by Lanczos until the question is answered:

    is λmin below −ε (then its interval is narrowed), or above (then λmin ≥ −ε holds with probability 1 − δ)?
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.curvature.dense import dense
from unstuck.curvature.eigen import rounding, start
from unstuck.curvature.forward import pinned
from unstuck.curvature.product import Hessian
from unstuck.linalg import certificate
from unstuck.linalg.eigen import blur
from unstuck.linalg.lanczos import Ritz, lanczos

MOST = 200
"""Products that Lanczos may spend."""

NARROW = 0.1
"""Width of an end's interval, over its size, at which it is known well enough."""

TRIAL = 16
"""Products from which the time of all is told."""

Tick = Callable[[str, float], None]


@dataclass(frozen=True)
class Interval:
    """An eigenvalue in [low, high]; wrong with probability `failure` at most (0: exact, but for rounding)."""

    low: float
    high: float
    failure: float


@dataclass(frozen=True)
class Ends:
    """λmin and λmax with unit vectors [n]: of the lowest and of the highest Ritz value or eigenvalue.

    `eigenvalues`: all of them, ascending, where they are known; `ritz`: where Lanczos stopped, otherwise.
    """

    least: Interval
    most: Interval
    lowest: Tensor
    highest: Tensor
    eigenvalues: tuple[float, ...] | None = None
    ritz: Ritz | None = None


def exact_ends(hessian: Hessian, budget_s: float, tick: Tick = lambda what, share: None) -> Ends | None:
    """From the dense Hessian; None where its n products would take longer than `budget_s` seconds."""
    began = time.perf_counter()
    trial = min(TRIAL, hessian.size)
    hessian(torch.eye(trial, hessian.size, dtype=hessian.flat.dtype, device=hessian.flat.device))
    if (time.perf_counter() - began) * hessian.size / trial > budget_s:
        return None
    tick("the whole Hessian", 0.1)
    values, vectors = torch.linalg.eigh(dense(hessian))
    off = rounding(hessian) * float(values.abs().max()) * hessian.size**0.5
    least, most = float(values[0]), float(values[-1])
    return Ends(
        Interval(least - off, least + off, 0.0),
        Interval(most - off, most + off, 0.0),
        vectors[:, 0].to(hessian.flat.device, hessian.flat.dtype),
        vectors[:, -1].to(hessian.flat.device, hessian.flat.dtype),
        eigenvalues=tuple(values.tolist()),
    )


@pinned()
def lanczos_ends(
    hessian: Hessian,
    tolerance: float,
    failure: float,
    deadline: float,
    seed: int = 0,
    tick: Tick = lambda what, share: None,
) -> Ends:
    """By Lanczos from a random start, until the sign of λmin is settled (up to `tolerance` · λmax) and both ends are
    known to `NARROW`, or the deadline (of `time.perf_counter`) has passed."""
    off = rounding(hessian)
    began = time.perf_counter()

    def enough(ritz: Ritz) -> bool:
        now = time.perf_counter()
        found = certificate.bounds(ritz, failure, blur(ritz, off))
        share = max((now - began) / max(deadline - began, 1e-9), ritz.products / MOST)
        tick(f"{ritz.products} products, λmin in [{found.low:.3g}, {found.least:.3g}]", 0.05 + 0.9 * min(share, 1.0))
        return now > deadline or _settled(found, tolerance)

    ritz = lanczos(hessian, start(hessian, seed), enough, MOST)
    found = certificate.bounds(ritz, failure, blur(ritz, off))
    lowest, highest = ritz.vectors(0, len(ritz.values) - 1)
    return Ends(
        Interval(found.low, found.least, failure), Interval(found.most, found.high, failure), lowest, highest, ritz=ritz
    )


def _settled(found: certificate.Ends, tolerance: float) -> bool:
    epsilon = tolerance * max(found.most, 0.0)
    if found.high - found.most > NARROW * abs(found.most):
        return False
    if found.least < -epsilon:
        return found.least - found.low <= NARROW * abs(found.least)
    return found.low >= -epsilon
