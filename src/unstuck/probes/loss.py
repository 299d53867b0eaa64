"""What the loss sends back, sample by sample, as a function of how wrong the prediction is.

At the logits z of a label with target t and p = softmax(z) (or σ(z) for labels that are each on their own):

    cross-entropy                  p − t
    squared error, softmax         2/C · J(p − t),  J = diag(p) − p pᵀ   (torch's mean over C classes)
    squared error, sigmoid         2 p (1 − p) (p − t)

and under the present loss by automatic differentiation through it. How wrong: the log-odds against the true class,
log((1 − p)/p), 0 at p = 1/2. A wrong prediction's gradient is *dead* where the present loss sends less than `DEAD` of
what cross-entropy sends, each measured against what it sends for an undecided prediction (all logits 0): so a factor
that the whole loss has, and a learning rate makes up for, does not count; and cross-entropy is dead nowhere.
(Squared error sends something also where p is nil, if several wrong classes share the rest: it moves these against each
other.)

    found = measure(problem)
    found.end.dead, found.end.wrong, found.end.share, found.end.error
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unstuck.errors import NotMeasurable
from unstuck.probes import anatomy
from unstuck.probes.logits import Link, Sent, Site, sent, site_of
from unstuck.probes.task import Task, task_of
from unstuck.problem import Batch, Problem, samples_a_batch, spaced, state_of
from unstuck.sandbox import sandbox

BATCHES, MOST, SAMPLES, LABELS = 4, 16, 512, 256
"""Batches that are looked at: so many, up to so many where it takes them to have so many samples; labels of each."""
DEAD = 0.01
"""Of cross-entropy's gradient. With two classes squared error is there at p < 0.0025, log-odds of 6, from where descent
takes (e⁶ + …)/4 = 106 units of time to p = 1/2, fifteen times cross-entropy's 7 (closed forms; a test holds them)."""
SAME = 0.01
"""Losses are one where the gradients of all labels differ by less than this share."""


@dataclass(frozen=True)
class State:
    """Of [n] labels at one state of the network: the log-odds against the true class, whether another class is
    likelier, the norms of the gradients under the present loss, cross-entropy and squared error, and the present one's
    share of cross-entropy's with that of an undecided prediction as 1. `factor`: the present loss's share of
    cross-entropy's gradient for an undecided prediction (median). `unweighed`: share of labels the loss leaves out."""

    odds: Tensor
    missed: Tensor
    present: Tensor
    cross: Tensor
    squared: Tensor
    kept: Tensor
    factor: float
    unweighed: float

    @property
    def samples(self) -> int:
        """Labels looked at."""
        return len(self.odds)

    @property
    def wrong(self) -> int:
        """How many are predicted wrongly."""
        return int(self.missed.sum())

    @property
    def dead(self) -> int:
        """How many of the wrong ones have a dead gradient."""
        return int((self.missed & (self.kept < DEAD)).sum())

    @property
    def share(self) -> float:
        """Share of the wrong predictions whose gradient is dead; nan where none is wrong."""
        return self.dead / self.wrong if self.wrong else float("nan")

    @property
    def error(self) -> float:
        """Its binomial standard error, with half a case added so that none in a few is not taken for certain. Labels of
        one sample (the steps of a text) count as independent, which they are not quite."""
        rate = (self.dead + 0.5) / (self.wrong + 1)
        return math.sqrt(rate * (1 - rate) / self.wrong) if self.wrong else float("nan")


@dataclass(frozen=True)
class Scales:
    """Of a regression: standard deviation of the targets, of the outputs at the start, and the distance of their means.
    """

    targets: float
    outputs: float
    apart: float


@dataclass(frozen=True)
class Loss:
    """The task, and the gradients at the start and at the end; or `why` they cannot be had. `logits`: where they were
    taken. `scales`: of a regression."""

    task: Task
    start: State | None = None
    end: State | None = None
    logits: str = ""
    why: str = ""
    scales: Scales | None = None

    @property
    def same_as(self) -> str:
        """cross-entropy or squared error, where the present loss's gradients are that one's; else empty."""
        states = [state for state in (self.start, self.end) if state is not None]
        for name in ("cross", "squared"):
            gaps = [((s.present - getattr(s, name)).abs() <= SAME * getattr(s, name) + 1e-6).all() for s in states]
            if gaps and all(map(bool, gaps)):
                return {"cross": "cross-entropy", "squared": "squared error"}[name]
        return ""


def measure(problem: Problem) -> Loss:
    """At the start and at the end, up to three passes of each of some batches; `why` says what cannot be measured."""
    seen = anatomy.measure(problem)
    with sandbox(0):
        task = task_of(problem, seen)
        if task.kind == "regression":
            return Loss(task, scales=_scales(problem))
        try:
            if not seen.trace.loss.requires_grad:
                raise NotMeasurable("no gradient gets from the loss to the network")
            site = site_of(problem, seen)
            if site.form == "scores":
                raise NotMeasurable("the outputs are raw scores, compared with labels as they are")
            start = state_at(problem, problem.twin(), site)
            end = state_at(problem, problem.twin(last=True), site) if _trained(problem) else start
        except NotMeasurable as error:
            return Loss(task, why=str(error))
        except Exception as error:  # the loss is the user's own: a part in the place of another may break it
            return Loss(task, why=f"{type(error).__name__}: {error}")
    return Loss(task, start, end, site.said)


def state_at(problem: Problem, model: nn.Module, site: Site) -> State:
    """The gradients of one state of the network. Three passes of each of some batches. Raises NotMeasurable."""
    found = [sent(problem, model, batch, site, LABELS) for batch in _batches(problem)]
    z, gradient, undecided, t = (
        torch.cat([getattr(part, name) for part in found]) for name in ("logits", "gradient", "undecided", "target")
    )
    p = probabilities(z, site.link)
    cross, present = cross_entropy_gradient(p, t, site.link).norm(dim=1), gradient.norm(dim=1)
    even = probabilities(torch.zeros_like(z), site.link)
    whole = undecided.norm(dim=1) / cross_entropy_gradient(even, t, site.link).norm(dim=1).clamp_min(1e-300)
    odds = against(z, t, site.link)
    missed = odds > 0 if site.link == "sigmoid" else z.argmax(1) != t.argmax(1)
    return State(
        odds=odds,
        missed=missed,
        present=present,
        cross=cross,
        squared=squared_error_gradient(p, t, site.link).norm(dim=1),
        kept=present / (cross * whole).clamp_min(1e-300),
        factor=float(whole.median()),
        unweighed=_unweighed(found),
    )


def _trained(problem: Problem) -> bool:
    """True if the training was left elsewhere than it began."""
    begun = state_of(problem.model)
    return any(not torch.equal(value, begun[name]) for name, value in problem.last.items() if name in begun)


def _batches(problem: Problem) -> tuple[Batch, ...]:
    return spaced(problem.data, max(BATCHES, min(MOST, SAMPLES // max(samples_a_batch(problem), 1))))


def _unweighed(found: list[Sent]) -> float:
    return 1 - sum(part.counted for part in found) / max(sum(part.labels for part in found), 1)


def probabilities(z: Tensor, link: Link) -> Tensor:
    """Softmax of logits [n, classes], or their sigmoid [n, 1]."""
    return z.softmax(1) if link == "softmax" else z.sigmoid()


def cross_entropy_gradient(p: Tensor, t: Tensor, link: Link) -> Tensor:
    """∂(−Σ t log p)/∂z = p Σt − t."""
    return p * t.sum(1, keepdim=True) - t if link == "softmax" else p - t


def squared_error_gradient(p: Tensor, t: Tensor, link: Link) -> Tensor:
    """∂(mean (p − t)²)/∂z = 2/C · p (d − Σ p d), d = p − t; for a sigmoid 2 p (1 − p) d."""
    d = p - t
    return 2 / p.shape[1] * p * (d - (p * d).sum(1, keepdim=True)) if link == "softmax" else 2 * p * (1 - p) * d


def against(z: Tensor, t: Tensor, link: Link) -> Tensor:
    """Log-odds against the true class [n]: log Σ_{k≠y} e^{z_k} − z_y, right however small 1 − p or p is."""
    if link == "sigmoid":
        return ((1 - 2 * (t > 0.5).to(z)) * z)[:, 0]
    true = t.argmax(1, keepdim=True)
    return z.scatter(1, true, -math.inf).logsumexp(1) - z.gather(1, true)[:, 0]


def _scales(problem: Problem) -> Scales | None:
    """None where outputs and targets are not of one size."""
    model = problem.twin()
    with torch.no_grad():
        found = [problem.evaluate(model, batch) for batch in _batches(problem)]
    outputs, targets = (
        torch.cat([x.detach().flatten().double() for x in some if x is not None])
        for some in ([r.output for r in found], [r.target for r in found])
    )
    if len(outputs) != len(targets) or len(targets) < 2:
        return None
    known = outputs.isfinite() & targets.isfinite()
    outputs, targets = outputs[known], targets[known]
    return Scales(float(targets.std()), float(outputs.std()), float((outputs.mean() - targets.mean()).abs()))
