"""Short trainings of variants of one problem, side by side: the same batches in the same order, several seeds each.

    found, executors = trials([(problem, 100), (variant, 100)], seeds=3)
    [outcome.end for outcome in found[1]]            # its training loss over the last tenth, seed by seed

Variants that share a signature and a number of steps are one heat (`race.executor`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from unstuck.criterion import Score
from unstuck.problem import Batch, Problem
from unstuck.race.executor import fastest, single_threaded
from unstuck.race.stack import signature
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
        mean = math.fsum(tail) / len(tail) if tail else math.inf
        return mean if math.isfinite(mean) and not self.diverged else math.inf


@dataclass(frozen=True)
class Level:
    """A figure over seeds: mean and standard error (0 of a single seed: unknown; inf means that a seed diverged)."""

    mean: float
    error: float
    seeds: int


def level(values: Sequence[float]) -> Level:
    """Mean and standard error over seeds."""
    if not all(map(math.isfinite, values)):
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
                there = known.get(place)
                heat, name, why = fastest(problems, scored, seed, mix and bool(seed), group.steps, known=there)
                known[place] = name, why
                executors[f"{len(problems)} trainings of {group.steps} updates: {name} ({why})"] = None
                for k, noted in zip(group.places, heat.check(group.steps), strict=True):
                    found[k].append(Outcome(tuple(noted.losses), noted.score, noted.diverged))
    return found, tuple(executors)


def _groups(variants: Sequence[tuple[Problem, int]]) -> list[_Group]:
    groups: dict[object, _Group] = {}
    for place, (problem, steps) in enumerate(variants):
        group = groups.setdefault((signature(problem, 0), steps), _Group(steps=steps))
        group.places.append(place)
    return list(groups.values())


def seconds_a_step(problem: Problem, steps: int = 3) -> float:
    """Wall time of one update of a plain loop on a copy. Costs `steps` + 1 of them."""
    run = Training(problem)
    run.advance(1)
    began = time.perf_counter()
    run.advance(steps)
    return (time.perf_counter() - began) / steps
