"""The race behind the chapter on the loss: cross-entropy on logits against squared error on probabilities.

    found = raced(problem, anatomy, loss, budget_s=10.0)
    found.rivals[0].best.end, found.verdict(found.rivals[1]).outcome

Every lane starts where the user's training began and sees the same batches, seed by seed. A loss changes which rate is
right: so each is raced around the present rate, and (where the optimizer's step is as long as the gradient) around the
rates at which an undecided prediction gets as long a step as under the present loss, or as under cross-entropy at the
present rate. They are judged by the accuracy on held-out data, each at its best rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from unstuck.chapters.criteria import lineup
from unstuck.chapters.plan import Plan, affordable
from unstuck.errors import NotMeasurable
from unstuck.probes.anatomy import Anatomy
from unstuck.probes.logits import LINKS, Site, site_of
from unstuck.probes.loss import Loss, state_at
from unstuck.problem import Batch, Problem, samples_a_batch, spaced
from unstuck.race.executor import fastest
from unstuck.race.heats import Noted, single_threaded
from unstuck.race.trials import Level, level, seconds_a_step
from unstuck.race.verdict import MATERIAL, judge
from unstuck.records import Verdict
from unstuck.sandbox import sandbox
from unstuck.training import exchangeable

Tick = Callable[[str, float], None]

CHECKS = 5
"""Times that accuracy is taken along the way; a race is judged by the mean of the last two."""
SCORED, MOST = 512, 16
"""Samples that are scored where held-out batches suffice, and batches of them at most."""
SCORING = 0.3
"""Of the budget, for that."""
WIDE, FAR = 2, 8
"""Half orders of magnitude to each side of a rate that are raced, and from the present one at most."""
SCALELESS = (
    torch.optim.Adam, torch.optim.AdamW, torch.optim.Adamax, torch.optim.NAdam, torch.optim.RAdam,
    torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.Rprop,
)  # fmt: skip
"""Optimizers whose steps do not grow with the gradient."""


@dataclass(frozen=True)
class Lane:
    """One loss at one rate: accuracy at each check over seeds, and that of each seed at the end."""

    rate: float
    course: tuple[Level, ...]
    ends: tuple[float, ...]

    @property
    def end(self) -> Level:
        """Accuracy at the end, over seeds."""
        return level(self.ends)


@dataclass(frozen=True)
class Rival:
    """One loss at all of its rates."""

    name: str
    lanes: tuple[Lane, ...]

    @property
    def best(self) -> Lane:
        """The lane with the highest accuracy at the end; of equals the one that came there first."""
        return max(self.lanes, key=lambda lane: (lane.end.mean, fmean(found.mean for found in lane.course)))

    def at(self, rate: float) -> Lane:
        """The lane whose rate is nearest to this one."""
        return min(self.lanes, key=lambda lane: abs(math.log(lane.rate / rate)))

    @property
    def open(self) -> bool:
        """True if accuracy still rises at the last rate that was tried: a better one may lie beyond."""
        ends = [lane.end for lane in self.lanes]
        sides = {0: 1, len(ends) - 1: -2}
        place = self.lanes.index(self.best)
        if place not in sides or len(ends) < 2:
            return False
        last, inner = ends[place], ends[sides[place]]
        return last.mean - inner.mean > max(MATERIAL, 2 * math.hypot(last.error, inner.error))


@dataclass(frozen=True)
class Raced:
    """Losses raced over `plan.steps` updates, the present one first; `rate` is the present rate. `samples` were scored
    at each check."""

    plan: Plan
    rate: float
    rivals: tuple[Rival, ...]
    metric: str
    samples: int
    executors: tuple[str, ...]

    @property
    def checks(self) -> tuple[int, ...]:
        """Updates at each check."""
        return tuple(self.plan.steps * (k + 1) // CHECKS for k in range(CHECKS))

    def verdict(self, rival: Rival) -> Verdict:
        """This loss against the present one, each at its best rate, by paired differences over seeds."""
        ours, theirs = rival.best.ends, self.rivals[0].best.ends
        best = max(fmean(ours), fmean(theirs))
        return judge(self.metric, theirs, ours, (), best, self.plan.steps, self.samples)


def raced(
    problem: Problem, seen: Anatomy, loss: Loss, budget_s: float, tick: Tick = lambda what, share: None
) -> Raced:
    """Race them in about `budget_s` seconds. Raises NotMeasurable without classes, without an optimizer that has a
    learning rate, where a loss cannot be put in the place of the present one, or where the time does not suffice."""
    recipe = problem.optimizer
    if problem.criterion.task not in LINKS:
        raise NotMeasurable("there are no classes to be right about")
    if recipe is None or not recipe.groups or not recipe.lr:
        raise NotMeasurable("no optimizer with a learning rate was seen")
    calm = replace(problem, loop=replace(problem.loop, schedule=(), stepping=True))
    site = site_of(calm, seen)
    cases = lineup(calm, seen, site, loss)
    scales = [_factor(case, site) for _, case in cases]
    step_s = seconds_a_step(calm)
    rates, plan = _chosen([1.0] * len(scales) if recipe.cls in SCALELESS else scales, step_s, budget_s)
    count = sum(map(len, rates))
    tick(f"racing {len(cases)} losses at {count} rates over {plan.steps} updates", 0.0)
    room = int(SCORING * budget_s / (count * CHECKS * step_s))
    wanted = math.ceil(SCORED / max(samples_a_batch(problem), 1))
    scored = spaced(problem.held_out or problem.data, max(2, min(MOST, wanted, room)))
    mix = exchangeable(calm)
    with single_threaded():
        raw = [_trained(case, factors, plan, scored, mix) for (_, case), factors in zip(cases, rates, strict=True)]
    score = raw[0][0][0][0][-1].score
    rivals = tuple(
        Rival(name, tuple(_lane(recipe.lr * f, runs) for f, runs in zip(factors, found, strict=True)))
        for (name, _), factors, (found, _) in zip(cases, rates, raw, strict=True)
    )
    metric = f"{'held-out' if problem.held_out else 'training'} {score.metric}"
    return Raced(plan, recipe.lr, rivals, metric, score.samples, tuple(said for _, said in raw))


def _factor(problem: Problem, site: Site) -> float:
    """The gradient for an undecided prediction, as a multiple of mean cross-entropy's."""
    with sandbox(0):
        return state_at(problem, problem.twin(), site).factor


def _chosen(scales: Sequence[float], step_s: float, budget_s: float) -> tuple[list[list[float]], Plan]:
    """For each loss, the present one first, the factors on the present rate: half orders of magnitude apart, or whole
    ones where time is short. `scales`: their gradients for an undecided prediction."""
    for apart in (1, 2):
        rates = [_factors((scales[0] / scale, 1 / scale), apart) for scale in scales]
        plan = affordable(step_s, sum(map(len, rates)), (1 - SCORING) * budget_s)
        if plan is not None:
            return rates, plan
    raise NotMeasurable(f"an update takes {step_s:.2g} s: no race of losses fits {budget_s:.0f} s")


def _factors(others: Sequence[float], apart: int) -> list[float]:
    """Around 1, around these other factors, and between them."""
    places = [0, *(max(-FAR, min(FAR, round(2 * math.log10(other)))) for other in others)]
    return [10 ** (k / 2) for k in range(min(places) - WIDE, max(places) + WIDE + 1) if k % apart == 0]


Runs = list[list[list[Noted]]]
"""[rate][seed][check]"""


def _trained(
    problem: Problem, factors: Sequence[float], plan: Plan, scored: Sequence[Batch], mix: bool
) -> tuple[Runs, str]:
    """One loss at all of its rates, and who trained it."""
    assert problem.optimizer is not None
    cases = [replace(problem, optimizer=problem.optimizer.scaled(factor)) for factor in factors]
    runs: Runs = [[] for _ in cases]
    known: tuple[str, str] | None = None
    for seed in range(plan.seeds):
        checks, known = _seed(cases, plan, scored, seed, mix, known)
        for lane, run in enumerate(runs):
            run.append([noted[lane] for noted in checks])
    assert known is not None
    return runs, f"{len(cases)} trainings of {plan.steps} updates: {known[0]} ({known[1]})"


def _seed(
    cases: Sequence[Problem], plan: Plan, scored: Sequence[Batch], seed: int, mix: bool, known: tuple[str, str] | None
) -> tuple[list[list[Noted]], tuple[str, str]]:
    """One heat from its start to its end [check][rate]: let go before the next one begins."""
    heat, name, why = fastest(cases, scored, seed, mix and bool(seed), plan.steps, known=known)
    return [heat.check(plan.steps // CHECKS) for _ in range(CHECKS)], (name, why)


def _lane(rate: float, runs: Sequence[Sequence[Noted]]) -> Lane:
    course = tuple(level([run[check].score.value for run in runs]) for check in range(CHECKS))
    return Lane(rate, course, tuple(fmean(noted.score.value for noted in run[-2:]) for run in runs))
