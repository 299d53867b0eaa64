"""Training against validation along the way: loss and score on both at the recorded snapshots and at the end.

Only where the script's own validation data were seen: batches held out of the training data were trained on by the
user's run. Costs `BATCHES` forward passes for each of up to ten snapshots, on copies, in evaluation mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from unstuck.criterion import score
from unstuck.errors import UnstuckError
from unstuck.problem import Batch, Problem, load_state, sandbox

BATCHES = 12


@dataclass(frozen=True)
class Point:
    """Loss and score at one step, on training and on validation batches; `losses`: each validation batch's."""

    step: int
    train_loss: float
    train_score: float
    loss: float
    score: float
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Generalization:
    """Points in order of steps, the last where the training was left."""

    metric: str
    points: tuple[Point, ...]
    samples: int

    @property
    def last(self) -> Point:
        """Where the training was left."""
        return self.points[-1]

    @property
    def best(self) -> Point:
        """The point with the lowest validation loss."""
        return min(self.points, key=lambda p: p.loss)

    @property
    def rise(self) -> tuple[float, float]:
        """Validation loss at the end minus the lowest, and its standard error over batches (pairs of the same batch)."""
        rises = [b - a for a, b in zip(self.best.losses, self.last.losses, strict=True)]
        mean = sum(rises) / len(rises)
        if len(rises) < 2:
            return mean, math.inf if mean else 0.0
        return mean, math.sqrt(sum((r - mean) ** 2 for r in rises) / (len(rises) - 1) / len(rises))


def measure(problem: Problem) -> Generalization:
    """Raises UnstuckError without validation data, or with fewer than two snapshots."""
    if not problem.validation:
        raise UnstuckError("no validation data were seen")
    if len(problem.loop.snapshots) < 2:
        raise UnstuckError("the training was too short for snapshots along the way")
    recorded = [batch for _, batch in problem.recorded[-BATCHES:]]
    train, valid = recorded or problem.data[:BATCHES], problem.validation[:BATCHES]
    points = []
    with sandbox(0):
        for step, state in problem.loop.snapshots:
            model = problem.twin()
            load_state(model, state)
            points.append(_point(problem, model, step, train, valid))
        points.append(_point(problem, problem.twin(last=True), problem.loop.steps, train, valid))
        end = score(problem, problem.twin(last=True), valid)
    return Generalization(end.metric, tuple(points), end.samples)


def _point(problem: Problem, model: nn.Module, step: int, train: Sequence[Batch], valid: Sequence[Batch]) -> Point:
    seen, fresh = score(problem, model, train), score(problem, model, valid)
    losses = tuple(score(problem, model, [batch]).loss for batch in valid)
    return Point(step, seen.loss, seen.value, fresh.loss, fresh.value, losses)
