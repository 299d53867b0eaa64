"""The loss as the user saw it: level, trend, jumps, bounce; and the gradient's norm beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from unstuck.errors import UnstuckError
from unstuck.problem import Problem

RISEN = 1.5
"""Last loss over the lowest tenth's: noise between tenths of a sound training stays within 1.2 (measured)."""
STILL = 0.01
GIVEN_BACK = 0.1
"""And of the way down that was lost again: next to a loss of nearly 0 every ripple is a large factor."""


@dataclass(frozen=True)
class History:
    """Summary of the losses (one a backward).

    first, last    mean over the first 5 and the last tenth; `lowest`: the smallest mean of any tenth
    slope, error   change of the loss over the second half, in units of the loss's noise, with its standard error
    jumps          share of steps that rose by more than half of the loss's level
    bounce         share of consecutive differences that change sign (2/3 for white noise, towards 1: oscillation)
    finite         False once a loss was NaN or infinite
    """

    count: int
    first: float
    last: float
    lowest: float
    highest: float
    noise: float
    slope: float
    slope_error: float
    jumps: float
    bounce: float
    finite: bool
    gradient_first: float
    gradient_last: float

    @property
    def stands(self) -> bool:
        """True if the loss does not fall any more: over the second half by less than its noise allows to tell, or by
        less than a hundredth of itself."""
        return self.finite and self.slope > -max(2 * self.slope_error, STILL * abs(self.last))

    @property
    def rose(self) -> bool:
        """True if the loss came down and clearly rose again, or ended in what is not finite."""
        given_back = self.last - self.lowest
        chance = 3 * self.noise / math.sqrt(max(self.count // 10, 1))  # of a tenth's mean
        clearly = given_back > max(chance, GIVEN_BACK * (self.first - self.lowest))
        return not self.finite or (clearly and self.lowest > 0 and self.last > RISEN * self.lowest)


def measure(problem: Problem) -> History:
    """From the recorded losses; costs nothing. Raises UnstuckError where there are fewer than eight."""
    losses = np.array(problem.loop.losses, dtype=float)
    finite = losses[np.isfinite(losses)]
    if len(finite) < 8:
        raise UnstuckError(f"{len(finite)} finite losses were seen; a history needs eight")
    tenths = [part.mean() for part in np.array_split(finite, min(10, len(finite) // 4 or 1))]
    half = finite[len(finite) // 2 :]
    noise = float(np.std(np.diff(half)) / math.sqrt(2)) if len(half) > 2 else 0.0
    slope, error = _trend(half)
    steps = np.diff(finite)
    level = np.maximum(np.abs(finite[:-1]), 1e-12)
    signs = np.sign(steps[steps != 0])
    norms = [norm for _, norm in problem.loop.gradient_norms if math.isfinite(norm)]
    return History(
        count=len(losses),
        first=float(finite[:5].mean()),
        last=float(tenths[-1]),
        lowest=float(min(tenths)),
        highest=float(finite.max()),
        noise=noise,
        slope=slope,
        slope_error=error,
        jumps=float((steps > 0.5 * level).mean()),
        bounce=float((signs[1:] != signs[:-1]).mean()) if len(signs) > 2 else 0.0,
        finite=bool(np.isfinite(losses).all()),
        gradient_first=float(np.mean(norms[:3])) if norms else float("nan"),
        gradient_last=float(np.mean(norms[-3:])) if norms else float("nan"),
    )


def _trend(values: np.ndarray) -> tuple[float, float]:
    """Change of a straight line over `values`, and its standard error (least squares)."""
    x = np.linspace(0, 1, len(values))
    centred = x - x.mean()
    slope = float((centred * values).sum() / (centred**2).sum())
    rest = values - values.mean() - slope * centred
    return slope, float(np.sqrt((rest**2).sum() / max(len(values) - 2, 1) / (centred**2).sum()))
