"""The chapter on batch normalization: its statistics layer by layer, what they cost in evaluation, other ways raced; of
a network without normalization, how its activations go through depth, and whether normalization helps it.

    chapter(problem, evidence, budget_s=20.0).sentences
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from unstuck.chapters.drawn import heights, lines
from unstuck.chapters.normalizers import Lane, Raced, raced
from unstuck.chapters.statistics import CERTAIN, drawn, figures, finite, pm, said
from unstuck.chapters.sweep import clearly_below
from unstuck.chapters.tried import tried
from unstuck.evidence import Evidence
from unstuck.probes import activations, normalization
from unstuck.probes.activations import Activation
from unstuck.probes.normalization import Normalization
from unstuck.probes.statistics import Sized, by_size
from unstuck.problem import Problem
from unstuck.race.trials import Level
from unstuck.records import Chapter, Chart, Figure, RemedyLine
from unstuck.remedies.insert_normalization import insert_batch_norm, normalizing, places

Tick = Callable[[str, float], None]
TITLE = "Batch normalization: statistics, their noise, and what else would do"
NOISE_SHARE, RACE_SHARE = 0.15, 0.7
"""Of the budget; the rest is for scores and statistics."""


def chapter(problem: Problem, evidence: Evidence, budget_s: float, tick: Tick = lambda what, share: None) -> Chapter:
    """The chapter, in about `budget_s` seconds; what cannot be measured is said in it."""
    missing: list[str] = []
    tick("statistics of normalization layers", 0.0)
    found = evidence.normalization or tried(lambda: normalization.measure(problem), missing)
    if found is None:
        return Chapter("normalization", TITLE, tuple(missing))
    if found.layers:
        return _with_batchnorm(problem, found, budget_s, tick, missing)
    others, spots = tried(lambda: normalizing(problem), missing), tried(lambda: places(problem), missing)
    if others is None or spots is None:
        return Chapter("normalization", TITLE, tuple(missing))
    if others or not spots:
        return Chapter("normalization", TITLE, (_nothing_to_do(others),))
    return _without(problem, evidence, found, budget_s, tick, missing)


def _nothing_to_do(others: Sequence[str]) -> str:
    if "batch_norm" in others:
        return "Batches are normalized by a function that is no BatchNorm layer: its statistics are out of sight."
    if others:
        return f"No BatchNorm layer; {' and '.join(others)} normalizes, and does not depend on the batch."
    return "No normalization, and no hidden layer that leads to an activation: there is no place where one is usual."


def _with_batchnorm(
    problem: Problem, found: Normalization, budget_s: float, tick: Tick, missing: list[str]
) -> Chapter:
    sized = tried(lambda: by_size(problem, NOISE_SHARE * budget_s), missing) or Sized({})
    race = tried(lambda: raced(problem, found, RACE_SHARE * budget_s, tick), missing)
    sentences = [*said(found, sized), *(_race(race) if race else ()), *missing]
    charts = (*drawn(found, sized), *(_race_charts(race) if race else ()))
    return Chapter("normalization", TITLE, tuple(sentences), figures(found), charts, _advice(race) if race else None)


def _without(
    problem: Problem, evidence: Evidence, found: Normalization, budget_s: float, tick: Tick, missing: list[str]
) -> Chapter:
    plain = evidence.activations or tried(lambda: activations.measure(problem), missing)
    batch = tried(lambda: activations.measure(insert_batch_norm(problem).apply(problem)), [])
    race = tried(lambda: raced(problem, found, RACE_SHARE * budget_s, tick), missing)
    scales = [("as it is, at the start", plain.initial), ("as it is, where it was left", plain.last)] if plain else []
    scales += [("with BatchNorm put in, at the start", batch.initial)] if batch else []
    sentences = ["The network has no normalization.", *_scale(scales), *(_race(race) if race else ()), *missing]
    through = tuple(Figure(f"last / first activation, {name}", finite(_through(scale))) for name, scale in scales)
    charts = (*_scale_chart(scales), *(_race_charts(race) if race else ()))
    return Chapter("normalization", TITLE, tuple(sentences), through, charts, _advice(race) if race else None)


Scales = Sequence[tuple[str, Sequence[Activation]]]


def _through(scale: Sequence[Activation]) -> float:
    return scale[-1].rms / scale[0].rms if len(scale) > 1 and scale[0].rms > 0 else math.nan


def _scale(scales: Scales) -> list[str]:
    told = [f"{name} {_through(scale):.2g}" for name, scale in scales if math.isfinite(_through(scale))]
    depth = max((len(scale) for _, scale in scales), default=0)
    return [f"Scale of the last of {depth} activations over the first: {'; '.join(told)}."] if told else []


def _race(race: Raced) -> list[str]:
    lanes = (race.present, *race.lanes)
    told = "; ".join(f"{lane.name} {_level(lane.score)} (training loss {_level(lane.loss)})" for lane in lanes)
    done = [f"After {race.plan.steps} updates, {race.metric} on held-out samples in evaluation mode: {told}."]
    for outcomes, what in ((("cured", "helped"), "Clearly better"), (("worse",), "Clearly worse"),
                           (("undecided",), "Undecided with so few seeds")):  # fmt: skip
        names = [lane.name for lane in race.lanes if lane.verdict.outcome in outcomes]
        done += [f"{what}: {', '.join(names)}."] if names else []
    if all(lane.verdict.outcome == "no-effect" for lane in race.lanes):
        done.append("None makes a difference.")
    lower = [lane.name for lane in race.lanes if clearly_below(lane.loss, race.present.loss)]
    done += [f"Clearly lower training loss: {', '.join(lower)}."] if lower else []
    if any(lane.name == "larger-batch" for lane in race.lanes):
        done.append("Larger batches make as many updates, and so see the more samples.")
    done += [f"Not raced: {name} ({why})." for name, why in race.refused]
    return [" ".join(done)]


def _advice(race: Raced) -> RemedyLine | None:
    """The smallest change that is clearly better than the present network, and as good as the best of them to within
    two standard errors."""
    ahead = [lane for lane in race.lanes if lane.verdict.outcome in {"cured", "helped"}]
    best = max(ahead, key=lambda lane: lane.score.mean, default=None)
    chosen = next((lane for lane in ahead if best is not None and _level_with(lane, best)), None)
    return chosen.remedy.line if chosen is not None and chosen.remedy is not None else None


def _level_with(lane: Lane, best: Lane) -> bool:
    return best.score.mean - lane.score.mean <= CERTAIN * math.hypot(lane.score.error, best.score.error)


def _level(found: Level) -> str:
    return pm(found.mean, found.error if found.error else math.inf) if math.isfinite(found.mean) else "diverges"


def _scale_chart(scales: Scales) -> tuple[Chart, ...]:
    curves = [
        lines(name, [float(k + 1) for k in range(len(scale))], [Level(one.rms, 0.0, 1) for one in scale])
        for name, scale in scales if len(scale) > 1
    ]  # fmt: skip
    title = "Scale of activations through depth"
    return (Chart(title, "activation", "root mean square", tuple(curves), log_y=True),) if curves else ()


def _race_charts(race: Raced) -> tuple[Chart, ...]:
    lanes, after = (race.present, *race.lanes), f"after {race.plan.steps} updates"
    scores = heights([(lane.name, lane.score.mean) for lane in lanes])
    losses = heights([(lane.name, lane.loss.mean) for lane in lanes])
    return (
        Chart(f"Held-out {race.metric} in evaluation mode, {after}", "way", race.metric, scores, bars=True),
        Chart(f"Training loss {after}", "way", "loss", losses, bars=True),
    )
