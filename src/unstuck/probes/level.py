"""How far the training came: score and loss at the start and at the end, against what a constant prediction gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.criterion import Score, labels_of, score
from unstuck.problem import Batch, Problem, samples_a_batch, spaced
from unstuck.sandbox import sandbox

BATCHES, SAMPLES = 24, 512
"""So many batches are scored, and as many more as it takes to score so many samples: accuracy is then good to 0.02."""


@dataclass(frozen=True)
class Level:
    """Scores of the model as it was left (`train`, `train_mode` with the modes it trained in, `held_out`,
    `validation`), at its start (`initial`), and of the best constant prediction (`chance`: its score, `chance_loss`:
    its loss under the user's criterion where that is a known one, else nan)."""

    metric: str
    initial: Score
    train: Score
    train_mode: Score
    held_out: Score | None
    validation: Score | None
    chance: float
    chance_loss: float
    majority: float

    @property
    def learnt(self) -> float:
        """Score above chance, as a share of what lies above chance (accuracy and R² end at 1)."""
        best = max(self.train.value, self.train_mode.value)
        return (best - self.chance) / max(1 - self.chance, 1e-9) if math.isfinite(best) else float("nan")


def measure(problem: Problem) -> Level:
    """Two to five passes of up to `BATCHES` batches (or `SAMPLES` samples), on copies."""
    many = max(BATCHES, SAMPLES // max(samples_a_batch(problem), 1))
    data = spaced(problem.data, many)
    with sandbox(0):
        end, start = problem.twin(last=True), problem.twin()
        train_mode = score(problem, problem.twin(last=True), data, training=True)
        initial, train = score(problem, start, data), score(problem, end, data)
        held = score(problem, end, spaced(problem.held_out, many)) if problem.held_out else None
        valid = score(problem, end, spaced(problem.validation, BATCHES)) if problem.validation else None
        targets = collect_targets(problem, data)
    chance, majority = _chance(problem, targets)
    return Level(train.metric, initial, train, train_mode, held, valid, chance, chance_loss(problem, targets), majority)


def collect_targets(problem: Problem, batches: Sequence[Batch]) -> list[Tensor]:
    """What the criterion compares the output with, batch by batch."""
    model = problem.twin().eval()
    with torch.no_grad():
        found = [problem.evaluate(model, batch).target for batch in batches]
    return [t.detach() for t in found if isinstance(t, Tensor)]


def class_shares(problem: Problem, targets: Sequence[Tensor]) -> Tensor:
    """Relative frequency of each class [classes]."""
    counts = torch.bincount(torch.cat([labels_of(problem.criterion.task, t) for t in targets]))
    return counts.double() / counts.sum()


def _chance(problem: Problem, targets: Sequence[Tensor]) -> tuple[float, float]:
    task = problem.criterion.task
    if not targets or task in {"regression", "unknown"}:
        return 0.0, float("nan")
    shares = class_shares(problem, targets)
    even = 1 / int((shares > 0).sum())
    return even if problem.criterion.balanced else float(shares.max()), float(shares.max())


def chance_loss(problem: Problem, targets: Sequence[Tensor]) -> float:
    """Loss of the best constant prediction under the user's criterion; nan where that is unknown.

    Cross-entropy and its kin: the entropy of the class shares. Squared error: the variance of the targets.
    """
    kind, task = problem.criterion.kind, problem.criterion.task
    if not targets:
        return float("nan")
    if kind in {"cross_entropy", "nll"} and task in {"classes", "onehot"}:
        shares = class_shares(problem, targets)
        return float(-(shares * shares.clamp_min(1e-300).log()).sum())
    rows = torch.cat([t.reshape(t.shape[0], -1) if t.dim() else t.reshape(1, 1) for t in targets]).double()
    if kind == "mse":
        return float(rows.var(0, unbiased=False).mean())
    if kind in {"bce", "bce_logits"}:
        p = rows.mean(0).clamp(1e-12, 1 - 1e-12)
        return float(-(p * p.log() + (1 - p) * (1 - p).log()).mean())
    return float("nan")
