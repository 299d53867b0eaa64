"""Which learning rates learn: one optimizer at many rates, raced from the same start on the same batches.

A rate *learns* if in so many updates it takes at least `HALF` of what the best rate takes off the training loss. Each
rate is judged by its interval over seeds: it does, it does not, or that is not told (`None`).

    found = judged(rates, outcomes, initial)
    found.low, found.high, found.best, found.standing(0.01)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from unstuck.race.trials import Level, Outcome, level

HALF = 0.5
SLIGHT = 0.1
"""Of a loss: short trainings of one network from two seeds differ by up to so much (measured on digits and
Fashion-MNIST)."""


@dataclass(frozen=True)
class Sweep:
    """Rates [rates] in ascending order with the loss at the end (over seeds), and whether each learns (None: not
    told). `low` to `high`: the unbroken range of rates that learn around the best one; `initial`: loss before."""

    name: str
    rates: tuple[float, ...]
    levels: tuple[Level, ...]
    learns: tuple[bool | None, ...]
    initial: float
    steps: int

    @property
    def place(self) -> int:
        """Where the best rate stands."""
        return min(range(len(self.rates)), key=lambda k: self.levels[k].mean)

    @property
    def best(self) -> float:
        """The rate with the lowest loss."""
        return self.rates[self.place]

    @property
    def reached(self) -> Level:
        """The loss at the best rate."""
        return self.levels[self.place]

    @property
    def low(self) -> float:
        """The smallest rate of the range that learns."""
        place = self.place
        while place > 0 and self.learns[place - 1]:
            place -= 1
        return self.rates[place]

    @property
    def high(self) -> float:
        """The largest one."""
        place = self.place
        while place < len(self.rates) - 1 and self.learns[place + 1]:
            place += 1
        return self.rates[place]

    @property
    def any(self) -> bool:
        """True if some rate brought the loss down."""
        return self.reached.mean < self.initial

    def at(self, rate: float) -> Level:
        """The loss at the tried rate nearest to this one."""
        return self.levels[self._nearest(rate)]

    def standing(self, rate: float) -> str:
        """inside, below, above, or undecided: where a rate stands to the range."""
        place = self._nearest(rate)
        if self.learns[place] is False:
            return "below" if rate < self.best else "above"
        return "inside" if self.learns[place] and self.low <= self.rates[place] <= self.high else "undecided"

    def _nearest(self, rate: float) -> int:
        return min(range(len(self.rates)), key=lambda k: abs(math.log(self.rates[k] / rate)))


def judged(name: str, rates: Sequence[float], outcomes: Sequence[Sequence[Outcome]], initial: float) -> Sweep:
    """The sweep of `rates` with their outcomes [rate][seed] from a start with the loss `initial`."""
    levels = tuple(level([outcome.end for outcome in runs]) for runs in outcomes)
    best = min(initial, *(found.mean for found in levels))
    line = initial - HALF * (initial - best)
    learns = tuple(_learns(runs, initial, line) for runs in outcomes)
    return Sweep(name, tuple(rates), levels, learns, initial, max(len(run.losses) for runs in outcomes for run in runs))


def clearly_below(one: Level, other: Level) -> bool:
    """True if the first loss is below the second by more than two standard errors of the difference, and by a tenth:
    short trainings of one network from two starts differ by that much."""
    if not math.isfinite(other.mean):
        return math.isfinite(one.mean)
    return other.mean - one.mean > max(2 * math.hypot(one.error, other.error), SLIGHT * abs(other.mean))


def _learns(runs: Sequence[Outcome], initial: float, line: float) -> bool | None:
    """True or False where the 95 % interval over seeds (Student's t) says so, False where one diverged. How far above
    the start a loss ends does not count: it is spread over orders of magnitude, and would leave nothing told."""
    ends = [run.end for run in runs]
    if not all(map(math.isfinite, ends)):
        return False
    found = level([min(end, initial) for end in ends])
    half = float(stdtrit(max(found.seeds - 1, 1), 0.975)) * found.error if found.seeds > 1 else 0.0
    return True if found.mean + half < line else False if found.mean - half >= line else None
