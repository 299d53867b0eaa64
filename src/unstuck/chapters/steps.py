"""The chapter on steps: which rates learn, which optimizer, what momentum and epsilon do, what the schedule leaves.

    chapter(problem, evidence, budget_s=20.0).sentences
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from unstuck.chapters.drawn import heights, lines
from unstuck.chapters.optimizers import Raced, raced
from unstuck.chapters.sweep import Sweep, clearly_below
from unstuck.chapters.tried import tried
from unstuck.evidence import Evidence
from unstuck.probes import steps
from unstuck.probes.steps import Steps
from unstuck.problem import Problem
from unstuck.race.grid import Setting
from unstuck.race.trials import Level
from unstuck.records import Chapter, Chart, Figure, RemedyLine
from unstuck.remedies.learning_rate import change_learning_rate

Tick = Callable[[str, float], None]
TITLE = "Steps: the learning rate and the optimizer"
APART = 10.0
"""Largest over smallest relative step of the layers from which one rate is called a bad fit for all: the rates that
learn span one to three orders of magnitude on the networks tried."""
OFF = 3.0
"""Times the loss at the start: what is above has gone astray, and would flatten the chart."""
SAID = {
    "inside": "is one of them",
    "below": "is below them",
    "above": "is above them",
    "undecided": "stands at their edge: with so few seeds it is undecided",
}


def chapter(problem: Problem, evidence: Evidence, budget_s: float, tick: Tick = lambda what, share: None) -> Chapter:
    """The chapter, in about `budget_s` seconds; what cannot be measured is said in it."""
    missing: list[str] = []
    race = tried(lambda: raced(problem, budget_s, tick), missing)
    even = tried(lambda: steps.measure(problem), missing)
    sentences = missing
    if race is not None:
        sentences = [*_rates(race), *_rivals(race), *_momentum(race), *_onward(race, evidence), *missing]
    if even is not None:
        sentences += _layers(even)
    sentences += _exhausted(evidence)
    charts = (*(_race_charts(race) if race else ()), *(_step_charts(even) if even else ()), *_schedule(evidence))
    figures = (*(_race_figures(race) if race else ()), *(_step_figures(even) if even else ()))
    return Chapter("steps", TITLE, tuple(sentences), figures, charts, _advice(problem, race) if race else None)


def _rates(race: Raced) -> list[str]:
    own = race.own
    if not own.any:
        return [f"No rate of {own.name} from {own.rates[0]:.2g} to {own.rates[-1]:.2g} brings the loss down from "
                f"{own.initial:.3g} in {own.steps} updates: the rate is not what is wrong."]  # fmt: skip
    low = f"{own.low:.2g}" + (" or less" if own.low == own.rates[0] else "")
    high = f"{own.high:.2g}" + (" or more" if own.high == own.rates[-1] else "")
    told = f"In {own.steps} updates {own.name} learns at rates from {low} to {high}"
    if not race.present:
        return [f"{told}; the present rate is 0."]
    return [f"{told}; {race.present:.2g} {SAID[own.standing(race.present)]}. It comes to a loss of "
            f"{_said(own.at(race.present))}, the best rate ({own.best:.2g}) to {_said(own.reached)}."]  # fmt: skip


def _rivals(race: Raced) -> list[str]:
    if not race.rivals:
        return []
    said = "; ".join(f"{r.name} {_said(r.reached)} at {r.best:.2g}" for r in race.rivals)
    best = race.rivals[0]
    verdict = (
        f"{best.name} is ahead of {race.own.name} at its best"
        if clearly_below(best.reached, race.own.reached)
        else f"none is clearly ahead of {race.own.name} at its best"
    )
    return [f"Each optimizer at the rate that suits it: {said}. {verdict[0].upper()}{verdict[1:]}."]


def _momentum(race: Raced) -> list[str]:
    said = []
    if race.momenta:
        values = "; ".join(f"β = {beta:g}: {_said(found)}" for beta, found in race.momenta)
        said.append(f"Momentum, at steps of the same length for a steady gradient: {values}.")
    if race.epsilons:
        values = "; ".join(f"{eps:.0e}: {_said(found)}" for eps, found in race.epsilons)
        said.append(f"Epsilon at the present rate: {values}.")
    return said


def _onward(race: Raced, evidence: Evidence) -> list[str]:
    """The schedule's course against the progress that is still possible."""
    if not race.onward:
        return []
    course, last = evidence.loop.schedule, evidence.loop.losses[-20:]
    now = f", where the loss was {math.fsum(last) / len(last):.3g}" if last else ""
    values = "; ".join(f"{_said(found)} at a rate of {rate:.2g}" for rate, found in race.onward)
    factor = f" The schedule had come to {course[-1]:.2g} of the optimizer's rate." if course else ""
    return [f"Going on from where the training was left{now}, {race.plan.steps} more updates end at {values}."
            + factor]  # fmt: skip


def _layers(even: Steps) -> list[str]:
    plain = even.of("sgd").spread
    if not math.isfinite(plain):
        return []
    others = ", ".join(f"{name} {even.of(name).spread:.2g}" for name in ("adagrad", "rmsprop", "adam"))
    verdict = "one rate is a bad fit for all of them" if plain > APART else "one rate fits all of them"
    return [f"A plain step moves the layers by shares of their weights that differ {plain:.2g}-fold: {verdict}. "
            f"Divided by the gradients' own size, the shares differ by: {others}."]  # fmt: skip


def _exhausted(evidence: Evidence) -> list[str]:
    recipe, gradients = evidence.problem.optimizer if evidence.problem else None, evidence.gradients
    if recipe is None or gradients is None or "adagrad" not in recipe.cls.__name__.lower():
        return []
    return [f"AdaGrad's sum of squared gradients has shrunk a step to {gradients.exhausted:.2g} of what it would be "
            "without."]  # fmt: skip


def _said(found: Level) -> str:
    if not math.isfinite(found.mean):
        return "diverges"
    return f"{found.mean:.3g} ± {found.error:.1g}" if found.error else f"{found.mean:.3g}"


def _race_figures(race: Raced) -> tuple[Figure, ...]:
    own, best = race.own, race.own.reached
    after = f"loss after {own.steps} updates"
    figures = [Figure("present rate", race.present)]
    if own.any:
        figures = [Figure("smallest rate that learns", own.low), Figure("largest rate that learns", own.high), *figures]
    if race.present:
        here = own.at(race.present)
        figures.append(Figure(f"{after} at the present rate", _finite(here.mean), error=here.error))
    return *figures, Figure(f"{after} at the best rate", _finite(best.mean), error=best.error)


def _step_figures(even: Steps) -> tuple[Figure, ...]:
    return tuple(Figure(f"spread of the layers' steps, {rule.name}", _finite(rule.spread)) for rule in even.rules)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _race_charts(race: Raced) -> tuple[Chart, ...]:
    most = OFF * abs(race.own.initial)
    own = [lines(f"{race.own.name}, as it is set", *_points(race.own), most)]
    others = [lines(rival.name, *_points(rival), most) for rival in race.rivals]
    title = f"Loss after {race.own.steps} updates, by learning rate"
    levels = (Figure("before any update", race.own.initial),) if math.isfinite(race.own.initial) else ()
    note = f"Mean over seeds with ± two standard errors; losses above {OFF:g} times the first are left out."
    charts = [Chart(title, "learning rate", "loss", (*own, *others), levels, log_x=True, log_y=True, note=note)]
    for name, found in (("Momentum β", race.momenta), ("Epsilon", race.epsilons)):
        if found:
            bars = heights([(f"{x:g}", level.mean) for x, level in found])
            charts.append(Chart(f"{name}: loss after {race.own.steps} updates", name, "loss", bars, bars=True))
    return tuple(charts)


def _points(sweep: Sweep) -> tuple[Sequence[float], Sequence[Level]]:
    return sweep.rates, sweep.levels


def _step_charts(even: Steps) -> tuple[Chart, ...]:
    updates = [float(k + 1) for k in range(even.updates)]
    courses = tuple(lines(rule.name, updates, [Level(x, 0.0, 1) for x in rule.lengths]) for rule in even.rules)
    note = (
        "Gradients at one state of the network; AdaGrad's steps shrink as 1/√t whatever is left to learn, RMSProp's "
        "only until its mean, which begins at 0, is filled."
    )
    title = "Length of a step as updates go on, the first as 1"
    return (Chart(title, "update", "length", courses, log_y=True, note=note),)


def _schedule(evidence: Evidence) -> tuple[Chart, ...]:
    course = evidence.loop.schedule
    if not course:
        return ()
    stride = max(1, len(course) // 400)
    kept = [(float(k), Level(course[k], 0.0, 1)) for k in range(0, len(course), stride)]
    curve = lines("rate", [x for x, _ in kept], [y for _, y in kept])
    return (Chart("The schedule: share of the optimizer's rate", "step", "share", (curve,)),)


def _advice(problem: Problem, race: Raced) -> RemedyLine | None:
    """What to write, where it clearly beats the present setting: another rate, or another optimizer."""
    recipe, own = problem.optimizer, race.own
    if recipe is None:
        return None
    here = own.at(race.present) if race.present else Level(own.initial, 0.0, race.plan.seeds)
    ahead = [r for r in race.rivals if r.any and all(clearly_below(r.reached, other) for other in (own.reached, here))]
    if ahead:
        setting = Setting(ahead[0].name, float(f"{ahead[0].best:.2g}"))
        return RemedyLine("change-optimizer", f"train with {setting}", setting.code(problem.model_name))
    return change_learning_rate(problem, own.best).line if own.any and clearly_below(own.reached, here) else None
