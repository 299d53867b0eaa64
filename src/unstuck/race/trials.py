"""Short trainings of variants of one problem, side by side: the same batches in the same order, several seeds each.

    found, executors = trials([(problem, 100), (variant, 100)], seeds=3, scored=problem.held_out)
    [outcome.end for outcome in found[1]]            # its training loss over the last tenth, seed by seed

Variants that share a signature and a number of steps are one heat (`race.executor`); those that cannot be stacked, as
they accumulate gradients for example, have one of their own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median, stdev

from unstuck.criterion import Score
from unstuck.problem import Batch, Problem
from unstuck.race.executor import fastest
from unstuck.race.heats import Noted, single_threaded
from unstuck.race.stack import signature, why_not
from unstuck.training import Training

LAST = 10
"""A trial is judged by its training loss over the last tenth of its steps."""


@dataclass(frozen=True)
class Outcome:
    """One variant with one seed: the training loss of each step, and the held-out score at the end."""

    losses: tuple[float, ...]
    score: Score
    diverged: bool

    @property
    def end(self) -> float:
        """Mean training loss over the last tenth of the steps; inf where it diverged."""
        tail = self.losses[-max(1, len(self.losses) // LAST) :]
        mean = sum(tail) / len(tail) if tail else math.inf  # a sum past the largest float is inf, too
        return mean if math.isfinite(mean) and not self.diverged else math.inf


@dataclass(frozen=True)
class Level:
    """A figure over seeds: mean and standard error (0 of a single seed: unknown; inf means that a seed diverged)."""

    mean: float
    error: float
    seeds: int


def level(values: Sequence[float]) -> Level:
    """Mean and standard error over seeds."""
    if not math.isfinite(sum(values)):
        return Level(math.inf, 0.0, len(values))
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Level(fmean(values), error, len(values))


@dataclass
class _Group:
    places: list[int] = field(default_factory=list)
    steps: int = 0


def trials(
    variants: Sequence[tuple[Problem, int]], seeds: int, scored: Sequence[Batch], mix: bool = False
) -> tuple[list[list[Outcome]], tuple[str, ...]]:
    """Outcomes [variant][seed], and who trained each group of variants, with the reason.

    `mix`: seeds draw other starts too (else only other orders of the data). Costs steps · seeds gradients each.
    """
    found: list[list[Outcome]] = [[] for _ in variants]
    executors: dict[str, None] = {}
    known: dict[int, tuple[str, str]] = {}
    with single_threaded():
        for seed in range(seeds):
            for place, group in enumerate(_groups(variants)):
                problems = [variants[k][0] for k in group.places]
                noted, name, why = _trained(problems, scored, seed, mix, group.steps, known.get(place))
                known[place] = name, why
                executors[f"{len(problems)} trainings of {group.steps} updates: {name} ({why})"] = None
                for k, one in zip(group.places, noted, strict=True):
                    found[k].append(Outcome(tuple(one.losses), one.score, one.diverged))
    return found, tuple(executors)


def _trained(
    problems: Sequence[Problem], scored: Sequence[Batch], seed: int, mix: bool, steps: int,
    known: tuple[str, str] | None,
) -> tuple[list[Noted], str, str]:  # fmt: skip
    """One heat from its start to its end: let go before the next one begins, with its processes and its memory."""
    heat, name, why = fastest(problems, scored, seed, mix and bool(seed), steps, known=known)
    return heat.check(steps), name, why


def _groups(variants: Sequence[tuple[Problem, int]]) -> list[_Group]:
    groups: dict[object, _Group] = {}
    for place, (problem, steps) in enumerate(variants):
        group = groups.setdefault((signature(problem, 0), why_not(problem), steps), _Group(steps=steps))
        group.places.append(place)
    return list(groups.values())


def seconds_a_step(problem: Problem, steps: int = 5) -> float:
    """Wall time of one update of a plain loop on a copy, the median of `steps`. Costs one more of them."""
    run = Training(problem)
    run.advance(1)
    began = [time.perf_counter()]
    for _ in range(steps):
        run.advance(1)
        began.append(time.perf_counter())
    return median(end - begin for begin, end in pairwise(began))
