"""The race behind the chapter on batches: batch sizes at as many samples, each at several scalings of the rate.

    found = raced(problem, sizes=(8, 32, 128), clock=clock, budget_s=15.0)
    found.best(32).scaling, found.updates(32, found.target)

Every lane starts where the user's training began and takes the same number of samples, so that small batches make the
more updates. The rate goes with batch size / present size to the power 0 (as it is), 1/2, or 1 (Goyal et al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from unstuck.errors import NotMeasurable
from unstuck.probes.throughput import Throughput
from unstuck.problem import Problem, samples_a_batch
from unstuck.race.trials import LAST, Level, Outcome, level, trials
from unstuck.remedies.batches import rebatched

SCALINGS = (("as it is", 0.0), ("by the square root", 0.5), ("in proportion", 1.0))
SEEDS = 2
FEWEST, MOST = 12, 200
"""Updates of the largest batches at least, and of the present ones at most."""


@dataclass(frozen=True)
class Lane:
    """One size at one scaling of the rate: losses at the end over seeds, and the course of each seed."""

    size: int
    scaling: str
    lr: float
    end: Level
    runs: tuple[Outcome, ...]


@dataclass(frozen=True)
class Sizes:
    """All lanes, and the samples that each took."""

    lanes: tuple[Lane, ...]
    samples: int
    executors: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes, ascending."""
        return tuple(sorted({lane.size for lane in self.lanes}))

    def best(self, size: int) -> Lane:
        """The lane of this size whose scaling did best."""
        return min((lane for lane in self.lanes if lane.size == size), key=lambda lane: lane.end.mean)

    @property
    def target(self) -> float:
        """The lowest loss that every size reaches with its best scaling."""
        return max(self.best(size).end.mean for size in self.sizes)

    def updates(self, size: int, target: float) -> Level:
        """Updates until the loss, averaged over a tenth of the samples, is at the target (all where it is not)."""
        return level([float(_reached(run.losses, target)) for run in self.best(size).runs])


def raced(problem: Problem, sizes: Sequence[int], clock: Throughput, budget_s: float) -> Sizes:
    """Race the sizes in about `budget_s` seconds by the clock's times. Raises NotMeasurable where the data cannot be
    batched anew, no optimizer is known, or the time does not suffice."""
    recipe, present = problem.optimizer, samples_a_batch(problem)
    if recipe is None or not recipe.lr:
        raise NotMeasurable("no optimizer with a learning rate was seen")
    calm = replace(problem, loop=replace(problem.loop, schedule=(), accumulate=1))
    samples = _affordable(sorted(sizes), present, clock, budget_s)
    lanes = []
    for size in sorted(sizes):
        batched = calm if size == present else rebatched(calm, size)
        for name, power in SCALINGS if size != present else SCALINGS[:1]:
            factor = (size / present) ** power
            lanes.append((size, name, recipe.lr * factor, replace(batched, optimizer=recipe.scaled(factor))))
    variants = [(case, max(1, samples // size)) for size, _, _, case in lanes]
    found, executors = trials(variants, SEEDS, (problem.held_out or problem.data)[:1])
    made = [
        Lane(size, name, lr, level([run.end for run in runs]), tuple(runs))
        for (size, name, lr, _), runs in zip(lanes, found, strict=True)
    ]
    return Sizes(tuple(made), samples, executors)


def _affordable(sizes: Sequence[int], present: int, clock: Throughput, budget_s: float) -> int:
    """Samples that every lane may take."""
    if clock.line is None:
        raise NotMeasurable("only one batch size could be timed")
    each = [clock.seconds(size) / size for size in sizes]
    lanes = [len(SCALINGS) if size != present else 1 for size in sizes]
    per_sample = SEEDS * sum(count * max(seconds, 0.0) for count, seconds in zip(lanes, each, strict=True))
    samples = int(min(budget_s / per_sample, MOST * max(present, sizes[-1])))
    if samples < FEWEST * sizes[-1]:
        raise NotMeasurable(
            f"a race of batch sizes up to {sizes[-1]} takes {FEWEST * sizes[-1] * per_sample:.0f} s, there are "
            f"{budget_s:.0f}"
        )
    return samples


def _reached(losses: Sequence[float], target: float) -> int:
    window = max(1, len(losses) // LAST)
    for end in range(window, len(losses) + 1):
        if fmean(losses[end - window : end]) <= target:
            return end
    return len(losses)


def recommended(critical: float, clock: Throughput) -> int:
    """The batch size that reaches a loss in the least time: a power of two next to √(a · critical / b).

    With seconds a + b·B an update and updates in proportion to 1 + critical/B, the time to a loss is least there. At
    most what was timed, at least 1. Raises NotMeasurable where an update's time does not grow with the batch.
    """
    line = clock.line
    if line is None or not line.per_sample > 0:
        raise NotMeasurable("an update takes as long at every batch size that was timed")
    wanted = math.sqrt(max(line.fixed, 0.0) * critical / line.per_sample)
    largest = max(timing.size for timing in clock.timings)
    return int(2 ** round(math.log2(min(max(wanted, 1.0), largest))))
