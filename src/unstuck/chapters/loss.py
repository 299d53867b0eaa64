"""The chapter on the loss: the task that the targets show, what the loss sends back, another loss from the same start,
and the loss over planes through the point where the training stands.

    chapter(problem, evidence, budget_s=10.0).sentences
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from msgspec import structs

from unstuck.chapters.criteria import CROSS
from unstuck.chapters.loss_charts import race_charts, sent_charts
from unstuck.chapters.losses import Lane, Raced, Rival, raced
from unstuck.chapters.surfaces import charts as surfaces
from unstuck.chapters.surfaces import said
from unstuck.chapters.tried import tried
from unstuck.evidence import Evidence
from unstuck.probes import anatomy, loss, surface
from unstuck.probes.logits import LINKS, site_of
from unstuck.probes.loss import Loss, State
from unstuck.probes.task import Task
from unstuck.problem import Problem
from unstuck.records import Chapter, Figure, RemedyLine, Verdict
from unstuck.remedies.objective import cross_entropy
from unstuck.sandbox import sandbox

Tick = Callable[[str, float], None]
TITLE = "The loss: what it expects, and what it sends back"
SURFACES_SHARE = 0.4
"""Of the budget; and what the race leaves."""
FEW = 10
"""Wrong predictions from which a share of them is said."""
AHEAD, UNDECIDED = frozenset({"cured", "helped"}), "may be ahead of the present loss or not, that is undecided"
LEFT = "Where the training was left"


def chapter(problem: Problem, evidence: Evidence, budget_s: float, tick: Tick = lambda what, share: None) -> Chapter:
    """The chapter, in about `budget_s` seconds; what cannot be measured is said in it."""
    missing: list[str] = []
    tick("what the loss sends back", 0.0)
    found = evidence.loss or tried(lambda: loss.measure(problem), missing)
    if found is None:
        return Chapter("loss", TITLE, tuple(missing))
    race = None
    began = time.perf_counter()
    if problem.criterion.task in LINKS:
        share = (1 - SURFACES_SHARE) * budget_s
        race = tried(lambda: raced(problem, anatomy.measure(problem), found, share, tick), missing)
    left = max(budget_s - (time.perf_counter() - began), SURFACES_SHARE * budget_s)
    slices = tried(lambda: surface.measure(problem, left), missing)
    sentences = (
        *_task(found.task), *_fit(problem, evidence, found.task), *_values(found), *_sent(found),
        *(_race(race) if race else ()), *(said(slices) if slices else ()), *missing,
    )  # fmt: skip
    charts = (
        *sent_charts(found), *(race_charts(race) if race else ()), *(surfaces(slices.slices) if slices else ()),
    )  # fmt: skip
    figures = (*_figures(found), *(_race_figures(race) if race else ()))
    return Chapter("loss", TITLE, sentences, figures, charts, _advice(problem, race) if race else None)


def _task(task: Task) -> list[str]:
    if task.kind == "unknown":
        return [f"What kind of task this is cannot be told: {task.told_by}."]
    named = {"regression": "regression", "sequence": "sequence task (a class for each step)"}
    return [f"The targets show a {named.get(task.kind, f'{task.kind} task')}: {task.told_by}."]


def _fit(problem: Problem, evidence: Evidence, task: Task) -> list[str]:
    """What the loss takes against what it gets."""
    if not task.gives:
        return []
    criterion, objective = problem.criterion, evidence.objective
    name = f"{criterion.kind}, written by hand" if criterion.handwritten else criterion.key[0] if criterion.key else ""
    site = criterion.site.rsplit("/", 1)[-1]
    place = f"{name}, {site}" if site else name
    known = task.form == "values" and "between" not in task.gives
    bounded = known and objective is not None and math.isfinite(objective.low) and math.isfinite(objective.high)
    span = f", from {objective.low:.3g} to {objective.high:.3g}" if bounded and objective else ""
    verdict = "" if task.fits else " That is not the form it takes."
    return [f"The loss ({place}) takes {task.expects} and is given {task.gives}{span}.{verdict}"]


def _values(found: Loss) -> list[str]:
    """Of a regression: there is no cross-entropy to compare with; what counts is the scale."""
    scales = found.scales
    if found.task.kind != "regression":
        return []
    said = "There are no classes, so there is no cross-entropy to compare the loss with; what counts is the scale."
    if scales is None:
        return [said]
    return [f"{said} Targets spread by {scales.targets:.3g} (standard deviation), outputs at the start by "
            f"{scales.outputs:.3g}, their means are {scales.apart:.3g} apart."]  # fmt: skip


def _sent(found: Loss) -> list[str]:
    if found.why:
        scores = (
            " The gradient of a distance between scores and labels does not fall as they part: it is dead nowhere."
            if "raw scores" in found.why
            else ""
        )
        return [f"Not compared sample by sample: {found.why}.{scores}"]
    start, end = found.start, found.end
    if start is None or end is None:
        return []
    when, begun = ("At the start", "") if start is end else (LEFT, f", {start.wrong / start.samples:.0%} at the start")
    said = [f"{when} {end.wrong / end.samples:.0%} of {end.samples} predictions are wrong{begun}."]
    if found.logits.startswith("log p"):
        said.append(f"Logits are read from {found.logits}, the inverse of what makes probabilities of them.")
    if found.same_as == CROSS:
        said.append("The present loss is cross-entropy on the logits: it sends back p − t, dead for none of them.")
    else:
        said += [_dead(start, end), _factor(end, found)]
    if end.unweighed:
        said.append(f"{end.unweighed:.0%} of the labels have no weight in the loss and are left out here.")
    return said


def _dead(start: State, end: State) -> str:
    """The share of wrong predictions that the loss has given up, in words."""
    states = ((end, LEFT.lower()), (start, "at the start"))[start is end :]
    told = "; ".join(f"for {_part(state)} {when}" for state, when in states)
    return (f"The gradient of a wrong prediction is dead {told}: under a hundredth of cross-entropy's, each measured "
            "against what it sends for an undecided prediction.")  # fmt: skip


def _part(state: State) -> str:
    if not state.wrong:
        return "none, as none is wrong,"
    share = f" ({state.share:.0%} ± {state.error:.1%})" if state.wrong >= FEW else ""
    return f"{state.dead} of {state.wrong}{share}"


def _factor(state: State, found: Loss) -> str:
    closed = " (squared error on a softmax over C classes: 2/C²)" if found.same_as and found.task.classes else ""
    return (f"For an undecided prediction the present loss sends {state.factor:.3g} times cross-entropy's "
            f"gradient{closed}: that a learning rate makes up for, what is dead it does not.")  # fmt: skip


def _race(race: Raced) -> list[str]:
    said = "; ".join(f"{r.name} {_level(r.best)} at a rate of {r.best.rate:.2g}" for r in race.rivals)
    here = "; ".join(f"{r.name} {_level(r.at(race.rate))}" for r in race.rivals)
    lead = f"From the same start, on the same batches, each loss at the best of {_rates(race)} rates"
    told = [f"{lead}: {race.metric} after {race.plan.steps} updates is {said}. At the present "
            f"rate of {race.rate:.2g}: {here}."]  # fmt: skip
    told += [_verdict(rival, race.verdict(rival)) for rival in race.rivals[1:]]
    edges = [rival.name for rival in race.rivals if rival.open]
    if edges:
        told.append(f"The best rate of {' and of '.join(edges)} was the last one tried: a better one may lie beyond.")
    return told


def _rates(race: Raced) -> str:
    counts = sorted({len(rival.lanes) for rival in race.rivals})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _level(lane: Lane) -> str:
    end = lane.end
    return f"{end.mean:.3f} ± {end.error:.1g}" if end.error else f"{end.mean:.3f}"


def _verdict(rival: Rival, verdict: Verdict) -> str:
    low, high = verdict.interval or (None, None)
    interval = f"the difference is between {low:+.3f} and {high:+.3f} (95 %)"
    ahead = verdict.outcome in AHEAD
    interval += " and every seed ends above all of the present loss's" if ahead and low is not None and low <= 0 else ""
    interval = "they end alike with every seed" if low == high else interval
    told = {"worse": "is behind the present loss", "no-effect": "is not ahead of the present loss"}
    standing = "is ahead of the present loss" if ahead else told.get(verdict.outcome, UNDECIDED)
    return f"{rival.name[0].upper()}{rival.name[1:]} {standing}: {interval}."


def _figures(found: Loss) -> tuple[Figure, ...]:
    figures: list[Figure] = []
    states = (("at the start", found.start), ("at the end", None if found.end is found.start else found.end))
    for when, state in states:
        if state is not None and state.wrong:
            name = f"share of wrong predictions with a dead gradient, {when}"
            figures.append(Figure(name, state.share, error=state.error, samples=state.wrong))
    if found.end is not None:
        name = "gradient of an undecided prediction, as a multiple of cross-entropy's"
        figures.append(Figure(name, found.end.factor))
    if found.scales is not None:
        figures += [
            Figure("standard deviation of the targets", found.scales.targets),
            Figure("standard deviation of the outputs at the start", found.scales.outputs),
        ]
    return tuple(figures)


def _race_figures(race: Raced) -> tuple[Figure, ...]:
    return tuple(
        Figure(f"{race.metric}, {r.name}", r.best.end.mean, error=r.best.end.error, samples=race.samples)
        for r in race.rivals
    )


def _advice(problem: Problem, race: Raced) -> RemedyLine | None:
    """Cross-entropy, where the race saw it clearly ahead of the present loss with each at its best rate."""
    rival = next((r for r in race.rivals[1:] if r.name == CROSS), None)
    if rival is None or race.verdict(rival).outcome not in AHEAD:
        return None
    with sandbox(0):
        site = site_of(problem, anatomy.measure(problem))
    task = "binary" if site.link == "sigmoid" else problem.criterion.task
    asked = replace(problem, criterion=replace(problem.criterion, task=task))
    line = cross_entropy(asked, [call.key for call in site.between]).line
    here, rate = race.rivals[0].best, rival.best.rate
    code = f"{line.code}{',' if '#' in line.code else '  #'} with lr={rate:.2g}"
    text = f"{line.text}: {race.metric} {rival.best.end.mean:.3f} instead of {here.end.mean:.3f} at the best rates"
    changed = problem.optimizer is not None and not math.isclose(rate, problem.optimizer.lr, rel_tol=1e-6)
    return structs.replace(line, text=text, code=code if changed else line.code)
