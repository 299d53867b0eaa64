"""The race behind the chapter on steps: rates, optimizers, momentum, epsilon, and what is still to be had from the end.

    found = raced(problem, budget_s=20.0)
    found.own.low, found.own.high, found.rivals[0].reached

Everything but the last starts where the user's training began, at constant rates (no schedule), and makes the same
number of updates of the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from unstuck.chapters.plan import Plan, affordable
from unstuck.chapters.sweep import Sweep, judged
from unstuck.errors import NotMeasurable
from unstuck.problem import Batch, Problem, resumed
from unstuck.race.grid import Setting, with_optimizer
from unstuck.race.trials import LAST, Level, Outcome, level, seconds_a_step, trials
from unstuck.recipe import OptimizerRecipe
from unstuck.training import exchangeable

Tick = Callable[[str, float], None]
Lane = tuple[str, float, Problem]
"""What a trial belongs to, its number (a rate, a momentum, …), and what is trained."""

AROUND, WITHIN = 100.0, (1e-4, 3.0)
"""The user's rate is varied by half orders of magnitude: by so much each way at least, and over what is usual."""
RATES = tuple(10 ** (k / 2) for k in range(-8, 3))
"""From 1e-4 to 10, for rules that the user does not use: all tried, as plain rules like large ones, adaptive small."""
RULES = ("sgd", "momentum", "adagrad", "rmsprop", "adam")
MOMENTA = (0.0, 0.5, 0.9, 0.99)
EPSILONS = (1e-8, 1e-5, 1e-3, 1e-1)
ONWARD = (0.1, 0.3, 1.0, 3.0)
"""Of the user's rate, for trainings that go on from where his was left."""
OWN, MOMENTUM, EPSILON, ON = "own", "momentum β", "epsilon", "onward"
USUAL = 1e-3
"""A rate to sweep around where the user's is 0."""


@dataclass(frozen=True)
class Raced:
    """Losses after `plan.steps` updates. `own`: the user's optimizer by rate; `rivals`: others by rate, best first;
    `momenta`, `epsilons`: (value, loss) at the user's rate; `onward`: (rate, loss) from where the training was
    left."""

    plan: Plan
    present: float
    own: Sweep
    rivals: tuple[Sweep, ...] = ()
    momenta: tuple[tuple[float, Level], ...] = ()
    epsilons: tuple[tuple[float, Level], ...] = ()
    onward: tuple[tuple[float, Level], ...] = ()
    executors: tuple[str, ...] = ()


def raced(
    problem: Problem, budget_s: float, tick: Tick = lambda what, share: None, among: Collection[str] | None = None
) -> Raced:
    """Race all of it, or where time is short the user's optimizer alone at fewer rates.

    `among`: names (of `RULES`, `MOMENTUM`, `EPSILON`, `ON`) that are raced beside the user's own; left out: all.
    Raises NotMeasurable without an optimizer whose rate can be changed, or where not even that fits.
    """
    recipe = problem.optimizer
    if recipe is None or not recipe.groups or not all("lr" in options for options, _ in recipe.groups):
        raise NotMeasurable("no optimizer with a learning rate was seen")
    calm = replace(problem, loop=replace(problem.loop, schedule=(), stepping=True))
    step_s = seconds_a_step(calm)
    lanes, plan = _chosen(calm, recipe, step_s, budget_s, among)
    tick(f"racing {len(lanes)} settings over {plan.steps} updates", 0.0)
    scored = tuple(problem.held_out or problem.data)[:1]
    anew, gone_on = [lane for lane in lanes if lane[0] != ON], [lane for lane in lanes if lane[0] == ON]
    named, executors = _trained(anew, plan, scored, mix=exchangeable(calm))
    onward, others = _trained(gone_on, plan, scored, mix=False)  # weights that are mixed have nothing to go on from
    initial = _begin(named[OWN])
    rivals = [judged(name, *_apart(named[name]), initial) for name in RULES if name in named]
    return Raced(
        plan=plan,
        present=recipe.lr,
        own=judged(recipe.cls.__name__, *_apart(named[OWN]), initial),
        rivals=tuple(sorted(rivals, key=lambda sweep: sweep.reached.mean)),
        momenta=_levels(named.get(MOMENTUM, [])),
        epsilons=_levels(named.get(EPSILON, [])),
        onward=_levels(onward.get(ON, [])),
        executors=tuple(dict.fromkeys(executors + others)),
    )


def _chosen(
    problem: Problem, recipe: OptimizerRecipe, step_s: float, budget_s: float, among: Collection[str] | None = None
) -> tuple[list[Lane], Plan]:
    """All lanes asked for, else those of the user's own optimizer, else every second rate of them."""
    asked = [lane for lane in _all(problem, recipe) if among is None or lane[0] == OWN or lane[0] in among]
    for lanes in (asked, _own(problem, recipe), _own(problem, recipe, 10.0)):
        plan = affordable(step_s, len(lanes), budget_s)
        if plan is not None:
            return lanes, plan
    raise NotMeasurable(f"an update takes {step_s:.2g} s: no race of learning rates fits {budget_s:.0f} s")


def _own(problem: Problem, recipe: OptimizerRecipe, apart: float = math.sqrt(10)) -> list[Lane]:
    """The user's optimizer at his rate and at others, each `apart` times the one before."""
    rate = recipe.lr or USUAL
    down = math.ceil(math.log(max(AROUND, rate / WITHIN[0]), apart) - 1e-9)
    up = math.ceil(math.log(max(AROUND, WITHIN[1] / rate), apart) - 1e-9)
    factors = [apart**k for k in range(-down, up + 1)]
    scaled = [(f, recipe.scaled(f) if recipe.lr else recipe.with_options(lr=f * USUAL)) for f in factors]
    return [(OWN, rate * f, replace(problem, optimizer=r)) for f, r in scaled]


def _all(problem: Problem, recipe: OptimizerRecipe) -> list[Lane]:
    lanes = _own(problem, recipe)
    lanes += [(name, lr, with_optimizer(problem, Setting(name, lr))) for name in RULES for lr in RATES]
    if not recipe.lr:
        return lanes  # at a rate of 0 nothing else makes a difference
    lanes += [(MOMENTUM, x, replace(problem, optimizer=r)) for x, r in _momenta(recipe)]
    lanes += [(EPSILON, x, replace(problem, optimizer=r)) for x, r in _epsilons(recipe)]
    if problem.last and problem.loop.steps:
        end = resumed(problem)
        lanes += [(ON, recipe.lr * f, replace(end, optimizer=recipe.scaled(f))) for f in ONWARD]
    return lanes


def _momenta(recipe: OptimizerRecipe) -> list[tuple[float, OptimizerRecipe]]:
    """Other momenta: of plain descent at the same lr / (1 − β), which is how far a steady gradient moves it; β₁ of
    Adam at the same rate, as its mean is no sum."""
    options = recipe.groups[0][0]
    if recipe.cls is torch.optim.SGD and not options.get("nesterov"):
        now = float(options.get("momentum", 0.0))
        return [
            (beta, recipe.scaled((1 - beta) / (1 - now)).with_options(momentum=beta))
            for beta in MOMENTA if now < 1
        ]  # fmt: skip
    if "betas" in options:
        return [(beta, recipe.with_options(betas=(beta, options["betas"][1]))) for beta in MOMENTA]
    return []


def _epsilons(recipe: OptimizerRecipe) -> list[tuple[float, OptimizerRecipe]]:
    adaptive = "eps" in recipe.groups[0][0] and recipe.cls in {torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop}
    return [(eps, recipe.with_options(eps=eps)) for eps in EPSILONS] if adaptive else []


Runs = list[tuple[float, list[Outcome]]]


def _trained(
    lanes: Sequence[Lane], plan: Plan, scored: Sequence[Batch], mix: bool
) -> tuple[dict[str, Runs], tuple[str, ...]]:
    """The outcomes of each name, and who trained them."""
    found, executors = trials([(case, plan.steps) for _, _, case in lanes], plan.seeds, scored, mix)
    named: dict[str, Runs] = {}
    for (name, number, _), outcomes in zip(lanes, found, strict=True):
        named.setdefault(name, []).append((number, outcomes))
    return named, executors


def _levels(runs: Runs) -> tuple[tuple[float, Level], ...]:
    return tuple((number, level([outcome.end for outcome in outcomes])) for number, outcomes in runs)


def _apart(runs: Runs) -> tuple[tuple[float, ...], list[list[Outcome]]]:
    return tuple(number for number, _ in runs), [outcomes for _, outcomes in runs]


def _begin(own: Runs) -> float:
    """The training loss at the start: of the smallest rate's first tenth, which hardly moves."""
    _, outcomes = own[0]
    first = [run.losses[: max(1, len(run.losses) // LAST)] for run in outcomes]
    return fmean(fmean(losses) for losses in first)

