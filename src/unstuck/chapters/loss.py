"""The chapter on the loss: the task that the targets show, what the loss sends back, and another loss from the same
start.

    chapter(problem, evidence, budget_s=10.0).sentences
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from msgspec import structs
from torch import Tensor

from unstuck.chapters.criteria import CROSS, PRESENT
from unstuck.chapters.drawn import heights, lines
from unstuck.chapters.losses import Raced, Rival, raced
from unstuck.chapters.tried import tried
from unstuck.evidence import Evidence
from unstuck.probes import anatomy, loss
from unstuck.probes.logits import LINKS, site_of
from unstuck.probes.loss import DEAD, Loss, State
from unstuck.probes.task import Task
from unstuck.problem import Problem
from unstuck.records import Chapter, Chart, Curve, Figure, RemedyLine, Verdict
from unstuck.remedies.objective import cross_entropy
from unstuck.sandbox import sandbox

Tick = Callable[[str, float], None]
TITLE = "The loss: what it expects, and what it sends back"
FEW = 10
"""Wrong predictions from which a share of them is said."""
DOTS = 150
"""Samples drawn of a state."""
AHEAD, UNDECIDED = frozenset({"cured", "helped"}), "may be ahead of the present loss or not, that is undecided"
LEFT = "Where the training was left"
DECADES = ("under 0.0001", "0.0001 to 0.001", "0.001 to 0.01", "0.01 to 0.1", "0.1 and more")


def chapter(problem: Problem, evidence: Evidence, budget_s: float, tick: Tick = lambda what, share: None) -> Chapter:
    """The chapter, in about `budget_s` seconds; what cannot be measured is said in it."""
    missing: list[str] = []
    tick("what the loss sends back", 0.0)
    found = evidence.loss or tried(lambda: loss.measure(problem), missing)
    if found is None:
        return Chapter("loss", TITLE, tuple(missing))
    race = None
    if problem.criterion.task in LINKS:
        race = tried(lambda: raced(problem, anatomy.measure(problem), found, budget_s, tick), missing)
    sentences = (
        *_task(problem, found.task), *_fit(problem, evidence, found.task), *_values(problem, found), *_sent(found),
        *(_race(race) if race else ()), *missing,
    )  # fmt: skip
    charts = (*_gradient_charts(found), *(_race_charts(race) if race else ()))
    figures = (*_figures(found), *(_race_figures(race) if race else ()))
    return Chapter("loss", TITLE, sentences, figures, charts, _advice(problem, race) if race else None)


def _task(problem: Problem, task: Task) -> list[str]:
    if task.kind == "unknown":
        return [f"What kind of task this is cannot be told: {task.told_by}."]
    article = "an" if task.kind[0] in "aeiou" else "a"
    kind = {"sequence": "sequence task (a class for each step)"}.get(task.kind, f"{task.kind} task")
    kind = "regression" if task.kind == "regression" else kind
    return [f"The targets show {article} {kind}: {task.told_by}."]


def _fit(problem: Problem, evidence: Evidence, task: Task) -> list[str]:
    """What the loss takes against what it gets."""
    if not task.gives:
        return []
    criterion, objective = problem.criterion, evidence.objective
    name = f"{criterion.kind}, written by hand" if criterion.handwritten else criterion.key[0] if criterion.key else ""
    site = criterion.site.rsplit("/", 1)[-1]
    place = f"{name}, {site}" if site else name
    bounded = objective is not None and math.isfinite(objective.low) and math.isfinite(objective.high)
    span = f", from {objective.low:.3g} to {objective.high:.3g}" if bounded and objective else ""
    verdict = "" if task.fits else " That is not the form it takes."
    return [f"The loss ({place}) takes {task.expects} and is given {task.gives}{span}.{verdict}"]


def _values(problem: Problem, found: Loss) -> list[str]:
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
    said = "; ".join(f"{rival.name} {_level(rival)} at a rate of {rival.best.rate:.2g}" for rival in race.rivals)
    lead = f"From the same start, on the same batches, each loss at the best of {_rates(race)} rates"
    told = [f"{lead}: {race.metric} after {race.plan.steps} updates is {said}."]
    told += [_verdict(rival, race.verdict(rival)) for rival in race.rivals[1:]]
    edges = [rival.name for rival in race.rivals if rival.open]
    if edges:
        told.append(f"The best rate of {' and of '.join(edges)} was the last one tried: a better one may lie beyond.")
    return told


def _rates(race: Raced) -> str:
    counts = sorted({len(rival.lanes) for rival in race.rivals})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _level(rival: Rival) -> str:
    end = rival.best.end
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


def _gradient_charts(found: Loss) -> tuple[Chart, ...]:
    end = found.end
    if end is None:
        return ()
    note = (
        "Each dot is a sample (a label of it). 0: the true class has p = 1/2; 4.6: p = 0.01; 9.2: p = 0.0001. "
        "Gradients are norms at the logits, of one sample's loss. A gradient of exactly 0 is not drawn."
    )
    title, across = "What the loss sends back, by how wrong the prediction is", "log-odds against the true class"
    dots = Chart(title, across, "gradient", _dots(found, end), log_y=True, dots=True, note=note)
    return dots, *_decades(end)


def _dots(found: Loss, state: State) -> tuple[Curve, ...]:
    """The present loss's and the closed forms' gradients; of those what the present loss is itself stands once."""
    shown = _shown(state)
    own = f"{found.same_as} ({PRESENT})" if found.same_as else PRESENT
    named = (("cross-entropy", state.cross), ("squared error", state.squared), (own, state.present))
    return tuple(_dotted(name, state.odds[shown], y[shown]) for name, y in named if name != found.same_as)


def _shown(state: State) -> Tensor:
    """Places of samples evenly spaced by how wrong they are, the wrong ones not crowded out."""
    order = state.odds.argsort()
    wrong = order[state.missed[order]]
    return torch.cat([some[torch.linspace(0, len(some) - 1, min(DOTS // 2, len(some))).long()]
                      for some in (order[~state.missed[order]], wrong) if len(some)])  # fmt: skip


def _dotted(name: str, x: Tensor, y: Tensor) -> Curve:
    known = y > 0  # on a logarithmic axis there is no place for none at all
    return Curve(name, tuple(x[known].tolist()), tuple(y[known].tolist()))


def _decades(state: State) -> tuple[Chart, ...]:
    """How much of the gradient is left for wrong predictions, by decades: drawn where some have lost any."""
    kept = state.kept[state.missed]
    if not len(kept) or float(kept.min()) >= 0.1:
        return ()
    place = (kept.clamp_min(1e-5).log10() + 5).floor().clamp(0, 4).long()
    shares = torch.bincount(place, minlength=len(DECADES)).double() / len(kept)
    bars = heights(list(zip(DECADES, shares.tolist(), strict=True)))
    note = f"As a share of cross-entropy's, undecided predictions as 1 in both; under {DEAD:g} it is called dead."
    return (Chart("Gradient left for wrong predictions", "gradient left", "share of them", bars, bars=True, note=note),)


def _race_charts(race: Raced) -> tuple[Chart, ...]:
    checks = [float(step) for step in race.checks]
    courses = tuple(lines(f"{r.name}, rate {r.best.rate:.2g}", checks, list(r.best.course)) for r in race.rivals)
    by_rate = tuple(lines(r.name, [x.rate for x in r.lanes], [x.end for x in r.lanes]) for r in race.rivals)
    note = f"Held-out, {race.samples} samples; mean over {race.plan.seeds} seeds with ± two standard errors."
    at_rates = f"After {race.plan.steps} updates, by learning rate"
    return (
        Chart("Losses from the same start, each at its best rate", "update", race.metric, courses, note=note),
        Chart(f"{at_rates} and loss", "learning rate", race.metric, by_rate, log_x=True, note=note),
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
    code = line.code if "#" in line.code else f"{line.code}  #"
    text = f"{line.text}: {race.metric} {rival.best.end.mean:.3f} instead of {here.end.mean:.3f} at the best rates"
    changed = problem.optimizer is not None and not math.isclose(rate, problem.optimizer.lr, rel_tol=1e-6)
    return structs.replace(line, text=text, code=f"{code} and lr={rate:.2g}" if changed else line.code)
