"""Batch normalization: each layer's statistics and mode, and what the batch, its size and evaluation mode do to it.

On the same samples, with dropout off, the model as it was left is scored three times: normalized by each batch (as in
training), by its running statistics (as in evaluation), and by running statistics recomputed from the data
(*recalibrated*). If recalibration closes the gap between the first two, the statistics are to blame. A fourth score,
in larger batches of the same samples, shows what the noise of small batches costs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from unstuck.criterion import Score, score
from unstuck.probes.statistics import (
    Distance,
    Noise,
    Norm,
    Seen,
    against,
    by_batch,
    collect,
    left_of_start,
    noise,
    norms,
)
from unstuck.problem import Batch, Problem, batch_size, samples_a_batch, spaced
from unstuck.rows import Rows
from unstuck.sandbox import sandbox

SAMPLES = 512
LARGE = 64
GROUPS = 16
"""Groups of batches that the difference between training and evaluation is taken in, for its standard error."""


@dataclass(frozen=True)
class Layer:
    """One BatchNorm layer. `fresh_start`, `fresh_end`: its statistics are those of a new layer (0 and 1), at the start
    and where the training was left; `noise`: spread of the batches' means, in standard deviations of a channel;
    `count`: values a channel is normalized over in one batch; `updates`: batches that moved its running statistics, and
    `left`: the share of these that is still their start (nan: it keeps none); `spread`: the noise with its error;
    `distance`: running statistics against the batches'."""

    path: str
    trains: bool
    tracks: bool
    momentum: float | None
    fresh_start: bool
    fresh_end: bool
    noise: float
    count: int
    updates: int = 0
    left: float = math.nan
    spread: Noise | None = None
    distance: Distance | None = None


@dataclass(frozen=True)
class Gap:
    """What evaluation mode adds to the loss and to the score, on the same samples, each with its standard error (over
    groups of batches, each scored both ways)."""

    loss: float
    loss_error: float
    score: float
    score_error: float


@dataclass(frozen=True)
class Normalization:
    """All layers; scores of the trained model by batch, by running and by recalibrated statistics, and in batches of
    `LARGE` (None: not measurable); paths of the dropout layers that drop something. `strays`: forward passes in
    training mode that belong to no backward of the loop (the layers count their batches), which moved the running
    statistics. `gap`: from batch to running statistics. `ragged`: samples in the smallest batch that was seen, where
    the others hold more (the last of an epoch); 0 where all are alike."""

    layers: tuple[Layer, ...]
    dropout: tuple[str, ...]
    batch: int
    by_batch: Score | None = None
    by_running: Score | None = None
    recalibrated: Score | None = None
    by_large: Score | None = None
    strays: int = 0
    gap: Gap | None = None
    ragged: int = 0


def measure(problem: Problem) -> Normalization:
    """Six to seven forward passes over up to `SAMPLES` samples; nothing where the model has no BatchNorm."""
    start, end = problem.twin(), problem.twin(last=True)
    dropout = tuple(n for n, m in end.named_modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0)
    size = problem.loop.batch_size or batch_size(problem.data[0])
    if not norms(end):
        return Normalization((), dropout, size)
    data = spaced(problem.data, max(2, SAMPLES // max(size, 1)))
    with sandbox(0), torch.no_grad():
        seen, first = collect(problem, by_batch(problem), data), norms(start)
        layers = tuple(_layer(problem, p, norm, first.get(p, norm), seen.get(p)) for p, norm in norms(end).items())
        batch = score(problem, by_batch(problem), data, training=True)
        running = score(problem, problem.twin(last=True), data)
        return Normalization(
            layers,
            dropout,
            size,
            batch,
            running,
            _recalibrated(problem, data),
            _large(problem, data, size),
            _strays(problem, start, end),
            _gap(problem, data, batch, running),
            _ragged(problem),
        )


def _layer(problem: Problem, path: str, norm: Norm, first: Norm, seen: Seen | None) -> Layer:
    spread = noise(seen) if seen is not None else None
    tracks = norm.track_running_stats and norm.running_mean is not None
    counted = norm.num_batches_tracked is not None
    updates = _counted(norm) - _counted(first) if counted else problem.loop.backwards if first.training else 0
    return Layer(
        path,
        first.training,
        tracks,
        norm.momentum,
        _fresh(first),
        _fresh(norm),
        spread.mean if spread is not None else math.nan,
        spread.count if spread is not None else 0,
        updates,
        left_of_start(norm.momentum, updates) if tracks else math.nan,
        spread,
        against(seen, norm) if seen is not None and tracks else None,
    )


def _fresh(norm: Norm) -> bool:
    """True if the running statistics are still 0 and 1."""
    if norm.running_mean is None or norm.running_var is None:
        return True
    return not bool(norm.running_mean.any()) and bool((norm.running_var == 1).all())


def _gap(problem: Problem, data: Sequence[Batch], batch: Score, running: Score) -> Gap:
    groups = [data[k::GROUPS] for k in range(min(GROUPS, len(data)))]
    one, other = by_batch(problem), problem.twin(last=True)
    ours = [score(problem, one, group, training=True) for group in groups]
    theirs = [score(problem, other, group) for group in groups]
    loss = [b.loss - a.loss for a, b in zip(ours, theirs, strict=True)]
    value = [b.value - a.value for a, b in zip(ours, theirs, strict=True)]
    return Gap(running.loss - batch.loss, _error(loss), running.value - batch.value, _error(value))


def _error(values: Sequence[float]) -> float:
    """Standard error of the mean; unknown (inf) of a single value."""
    return float(torch.tensor(values).double().std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def _ragged(problem: Problem) -> int:
    """The fewest samples in a recorded batch, where that is less than usual."""
    usual, drawn = samples_a_batch(problem), [batch for _, batch in problem.recorded]
    sizes = [problem.rows.count(b) if problem.rows is not None else batch_size(b) for b in drawn]
    return min(sizes, default=usual) if min(sizes, default=usual) < usual else 0


def _strays(problem: Problem, start: nn.Module, end: nn.Module) -> int:
    """Batches that a layer counted beyond those of the recorded losses (0 where the layers do not count)."""
    trial = copy.deepcopy(start)
    with torch.enable_grad():
        loss = problem.value(trial, problem.data[0])
        if loss.requires_grad:  # checkpointed parts run, and count, once more
            loss.mean().backward()  # type: ignore[no-untyped-call]
    before, once, after = ({p: _counted(n) for p, n in norms(m).items()} for m in (start, trial, end))
    own = {p: problem.loop.backwards * (once[p] - before[p]) for p in before if once[p] > before[p]}
    return max((after.get(p, 0) - before[p] - count for p, count in own.items()), default=0)


def _counted(norm: Norm) -> int:
    return int(norm.num_batches_tracked) if norm.num_batches_tracked is not None else 0


def _recalibrated(problem: Problem, data: Sequence[Batch]) -> Score:
    """Score in evaluation mode after the running statistics were recomputed as plain means over these batches."""
    model = by_batch(problem)
    for norm in norms(model).values():
        norm.momentum = None
        norm.reset_running_stats()
    for batch in data:
        problem.value(model, batch)
    return score(problem, model, data)


def _large(problem: Problem, data: Sequence[Batch], size: int) -> Score | None:
    """Score by batch statistics in batches of `LARGE` of the same samples; None where they cannot be batched anew."""
    rows = Rows.of(data, size) if size < LARGE else None
    if rows is None or len(rows) < 2 * LARGE:
        return None
    batches = rows.batches(torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)), LARGE)
    changed = replace(problem, data=batches)
    return score(changed, by_batch(changed), batches, training=True)
