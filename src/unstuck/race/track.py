"""One lane of the race with one seed: a training that is advanced from check to check and scored at each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch

from unstuck.criterion import Score
from unstuck.problem import Batch, Problem, batch_size, spaced
from unstuck.rows import Rows
from unstuck.training import Training

SCORED = 1024
"""Samples a score rests on at most: its sampling error is then below 0.016, and it costs less than the steps."""

ONE_BY_ONE = "one by one"
SINGLES = 256
"""The same of samples that are a batch each: an error of 0.03."""


@dataclass(frozen=True)
class Lane:
    """A named problem to train; `on` where its effect must show: "held-out", "train", "one by one" (held-out samples,
    each a batch), or "loss" (on the script's own validation data, or held-out ones where none were seen), after at
    least `least` steps.

    `early`: compared as soon as it is done. Plain descent leaves almost every saddle in the end (Lee et al. 2016): what
    a step out of it saves is time. `pace`: updates for each of the control's, whose steps are what a check counts.
    """

    name: str
    problem: Problem
    on: str = "held-out"
    least: int = 0
    early: bool = False
    pace: float = 1.0


@dataclass
class Track:
    """What one lane with one seed left: steps of the checks, its scores there; `error` where its model raised.

    `scored`: by what lanes of the race are judged, beside the score on held-out and on training batches.
    """

    lane: Lane
    seed: int
    mix: bool
    start_loss: float
    scored: frozenset[str] = frozenset()
    steps: list[int] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    singles: list[float] = field(default_factory=list)
    samples: int = 0
    error: str = ""
    _run: Training | None = None

    def scores(self, on: str = "") -> list[float]:
        """By what the lane (or `on`) judges: training batches, held-out ones or samples, the share of the loss gone."""
        known = {"train": self.train, "loss": self.loss, ONE_BY_ONE: self.singles}
        return known.get(on or self.lane.on, self.held_out)

    def advance(self, steps: int) -> None:
        """Train on to `steps` steps in all, and score."""
        if self.error:
            return
        try:
            run = self._run = self._run or self._begin()
            run.advance(round(steps * self.lane.pace) - run.steps if not run.diverged else 0)
            self._score(run, steps)
        except Exception as error:  # the user's own model may raise anything on a changed copy
            self.error = f"{type(error).__name__}: {error}"

    def end(self) -> None:
        """Let the trained copy go."""
        self._run = None

    def _begin(self) -> Training:
        run = Training(self.lane.problem, self.seed, self.mix)
        # A control that is broken from the first step has no loss to measure by: the lane's own first one serves.
        if not math.isfinite(self.start_loss):
            self.start_loss = run.score(spaced(self.lane.problem.data, 4)).loss
        return run

    def _score(self, run: Training, steps: int) -> None:
        problem = self.lane.problem
        limit = scored_batches(problem)
        held = run.score(spaced(problem.held_out or problem.data, limit), limit)
        train = run.score(spaced(problem.data, (limit + 1) // 2), limit)
        self.steps.append(steps)
        self.held_out.append(level(held, run.diverged, self.start_loss))
        self.train.append(level(train, run.diverged, self.start_loss))
        fresh = run.score(spaced(problem.validation, limit), limit) if self._validates else held
        self.loss.append(level(replace(fresh, metric="negative loss"), run.diverged, self.start_loss))
        singles = run.score(alone, SINGLES) if ONE_BY_ONE in self.scored and (alone := _singles(problem)) else held
        self.singles.append(level(singles, run.diverged, self.start_loss))
        self.samples = singles.samples if self.lane.on == ONE_BY_ONE else held.samples

    @property
    def _validates(self) -> bool:
        return "loss" in self.scored and bool(self.lane.problem.validation)


def _singles(problem: Problem) -> tuple[Batch, ...]:
    """Held-out samples, each a batch; none where the batches cannot be cut."""
    held = problem.held_out or problem.data
    rows = Rows.of(held, batch_size(held[0]))
    return rows.batches(torch.arange(min(SINGLES, len(rows))), 1) if rows is not None else ()


def scored_batches(problem: Problem) -> int:
    """So many batches hold about `SCORED` samples (two at least)."""
    size = max(1, batch_size(problem.data[0]))
    return max(2, math.ceil(SCORED / size))


def level(score: Score, diverged: bool, start_loss: float) -> float:
    """A score with a lowest value (accuracy 0, else −1) that what is not finite or diverged counts as.

    Where neither accuracy nor R² is known it is the share of the control's initial loss that is gone.
    """
    lowest = 0.0 if score.metric.endswith("accuracy") else -1.0
    value = 1 - score.loss / start_loss if score.metric == "negative loss" and start_loss else score.value
    return max(value, lowest) if math.isfinite(value) and not diverged else lowest
