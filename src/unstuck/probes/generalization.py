"""Training against validation along the way: loss and score on both at the recorded snapshots and at the end.

Only where the script's own validation data were seen: batches held out of the training data were trained on by the
user's run. Costs `BATCHES` forward passes for each of some ten states, on copies, in evaluation mode.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from unstuck.criterion import score
from unstuck.errors import NotApplicable, UnstuckError
from unstuck.probes.level import class_shares, collect_targets
from unstuck.problem import Batch, Problem, TapeProgram, load_state
from unstuck.rows import Rows
from unstuck.sandbox import sandbox
from unstuck.training import Training

BATCHES = 10
PIECES = 8
FEW, COURSE_S = 5, 3.0
APART = 0.5
"""Total variation between the class shares of training and validation data from which they are of different tasks: a
random split of a hundred samples into ten classes stays below 0.2."""


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
        """Validation loss at the end minus the lowest, and its standard error over pairs of the same batch."""
        rises = [b - a for a, b in zip(self.best.losses, self.last.losses, strict=True)]
        mean = sum(rises) / len(rises)
        if len(rises) < 2:
            return mean, math.inf if mean else 0.0
        return mean, math.sqrt(sum((r - mean) ** 2 for r in rises) / (len(rises) - 1) / len(rises))


def measure(problem: Problem) -> Generalization:
    """Raises NotApplicable without validation data, UnstuckError where there is no course to look at."""
    if not problem.validation:
        raise NotApplicable("no validation data were seen")
    # Of a captured run, what it drew itself: more batches may have been made of samples that it never trained on.
    drawn = [batch for _, batch in problem.recorded[-BATCHES:]] if isinstance(problem.loss, TapeProgram) else []
    train, valid = drawn or problem.data[:BATCHES], _several(problem.validation)[:BATCHES]
    points = []
    with sandbox(0):
        if not same_targets(problem, train, valid):
            raise NotApplicable("the validation data have targets of another kind: they belong to another task")
        for step, model in _course(problem):
            points.append(_point(problem, model, step, train, valid))
        if not points:
            raise UnstuckError("the training was too short to have a course")
        points.append(_point(problem, problem.twin(last=True), problem.loop.steps, train, valid))
        end = score(problem, problem.twin(last=True), valid)
    return Generalization(end.metric, tuple(points), end.samples)


def _several(batches: Sequence[Batch]) -> Sequence[Batch]:
    """The batches; few large ones in `PIECES`, where samples can be told apart: a standard error takes several."""
    if len(batches) >= PIECES:
        return batches
    lengths = [len(leaf) for leaf in batches[0] if isinstance(leaf, torch.Tensor) and leaf.dim()]
    rows = Rows.of(batches, min(lengths)) if lengths else None
    if rows is None or len(rows) < 2 * PIECES:
        return batches
    return rows.batches(torch.arange(len(rows)), len(rows) // PIECES)


def same_targets(problem: Problem, train: Sequence[Batch], valid: Sequence[Batch]) -> bool:
    """True if classes are as frequent (values spread as far) in both; a script may train one task after another."""
    ours, theirs = collect_targets(problem, train), collect_targets(problem, valid)
    if not ours or not theirs or problem.criterion.task == "unknown":
        return True
    if problem.criterion.task != "regression":
        first, second = class_shares(problem, ours), class_shares(problem, theirs)
        width = max(len(first), len(second))
        gap = nn.functional.pad(first, (0, width - len(first))) - nn.functional.pad(second, (0, width - len(second)))
        return float(gap.abs().sum()) / 2 < APART
    first, second = (torch.cat([t.flatten() for t in part]).double() for part in (ours, theirs))
    return float((first.mean() - second.mean()).abs()) < 3 * float(torch.maximum(first.std(), second.std()))


def _course(problem: Problem) -> Iterator[tuple[int, nn.Module]]:
    """The recorded states along the way; where these are few, of a copy trained for `COURSE_S` seconds at most."""
    if len(problem.loop.snapshots) >= FEW:
        for step, state in problem.loop.snapshots:
            model = problem.twin()
            load_state(model, state)
            yield step, model
        return
    run, start, aim = Training(problem), time.perf_counter(), 8.0
    while run.steps < problem.loop.steps and not run.diverged and time.perf_counter() - start < COURSE_S:
        run.advance(min(int(aim), problem.loop.steps) - run.steps)
        yield run.steps, copy.deepcopy(run.model)
        aim *= 1.4


def _point(problem: Problem, model: nn.Module, step: int, train: Sequence[Batch], valid: Sequence[Batch]) -> Point:
    seen, fresh = score(problem, model, train), score(problem, model, valid)
    return Point(step, seen.loss, seen.value, fresh.loss, fresh.value, fresh.losses)
