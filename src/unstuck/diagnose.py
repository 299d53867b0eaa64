"""Where all stages meet: problem → evidence → suspicions → race → report.

    report = examine(problem, budget_s=60)

Every part is anytime: a probe or lane that does not fit its share of the budget is left out, and the report says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from msgspec import structs

from unstuck.chapters import batches, steps
from unstuck.chapters import loss as loss_chapter
from unstuck.chapters import normalization as normalization_chapter
from unstuck.charts import charts
from unstuck.criterion import prepared, weighed
from unstuck.errors import BadArgument, NotApplicable, UnstuckError
from unstuck.evidence import Evidence
from unstuck.loop import Loop
from unstuck.probes import (
    activations,
    anatomy,
    averaging,
    curvature,
    data,
    generalization,
    gradients,
    history,
    labels,
    level,
    loss,
    noise,
    normalization,
    numbers,
    objective,
    one_batch,
    order,
    rates,
    reach,
    redraw,
    references,
)
from unstuck.problem import Problem, resumed
from unstuck.race import race
from unstuck.race.race import Race
from unstuck.recipe import OptimizerRecipe
from unstuck.records import Chapter, Cost, Report, Skipped
from unstuck.remedies.remedy import Remedy
from unstuck.rules import RULES
from unstuck.rules.rule import Suspicion
from unstuck.sandbox import sandbox
from unstuck.settle import SURE, fine, headline, key_figures, settle, sound, unexplained

Tick = Callable[[str, float], None]

PROBES: tuple[tuple[str, Callable[[Problem], object]], ...] = (
    ("history", history.measure),
    ("level", level.measure),
    ("anatomy", anatomy.measure),
    ("data", data.measure),
    ("noise", noise.measure),
    ("objective", objective.measure),
    ("loss", loss.measure),
    ("activations", activations.measure),
    ("gradients", gradients.measure),
    ("reach", reach.measure),
    ("numbers", numbers.measure),
    ("order", order.measure),
    ("normalization", normalization.measure),
    ("references", references.measure),
    ("rates", rates.measure),
    ("generalization", generalization.measure),
    ("redraw", redraw.measure),
    ("one_batch", one_batch.measure),
    ("labels", labels.measure),
    ("averaging", averaging.measure),
)
"""In the order they are asked: cheap ones first, then those that train or fit something."""

CHAPTERS_SHARE = 0.5
"""Of the budget what chapters may take where they are asked for."""

CHAPTERS = (
    (steps.chapter, 0.3),
    (batches.chapter, 0.25),
    (loss_chapter.chapter, 0.25),
    (normalization_chapter.chapter, 0.2),
)
"""In the lecture's order, each with its share of that; what one leaves goes to those after it, and where one took too
long they still have half of theirs."""

EXAMINE_SHARE = 0.4
LATE_SHARE, LEAST_S = 0.1, 3.0
"""Of the budget: what the probes may take, and what the point where the training stands may take if need be
(some seconds at least: below, nothing is certified)."""

RACED = 5
"""So many suspicions race, each with up to two remedies."""


def _quiet(what: str, share: float) -> None:
    return None


def examine(
    problem: Problem, budget_s: float = 60.0, cure: bool = True, tick: Tick = _quiet, chapters: bool = False,
    target: str = "", skipped: Sequence[Skipped] = (),
) -> Report:  # fmt: skip
    """The report on a problem that was written down (or recorded). Raises BadArgument when it is none.

    `chapters`: with those of the lecture, for which half of the budget is kept, and what the rest leaves.
    """
    if not isinstance(problem, Problem):
        raise BadArgument(f"examine: `problem` must be an unstuck.Problem, got {type(problem).__name__}")
    with sandbox(0):
        problem = prepared(problem)
    began, share = time.perf_counter(), 1 - CHAPTERS_SHARE if chapters else 1.0
    report, evidence = _diagnosed(
        problem, problem.loop, problem.optimizer, skipped, None, target, share * budget_s, cure, tick
    )
    if not chapters:
        return report
    left = max(budget_s - (time.perf_counter() - began), CHAPTERS_SHARE * budget_s)
    return structs.replace(report, chapters=_chapters(problem, evidence, left, tick))


def _chapters(problem: Problem, evidence: Evidence, budget_s: float, tick: Tick) -> tuple[Chapter, ...]:
    """Each measures again what it needs."""
    made: list[Chapter] = []
    deadline, shares = time.perf_counter() + budget_s, sum(share for _, share in CHAPTERS)
    for chapter, share in CHAPTERS:
        left = max((deadline - time.perf_counter()) / shares, budget_s / 2)
        made.append(chapter(problem, evidence, share * left, tick))
        shares -= share
    return tuple(made)


def diagnose(
    problem: Problem | None,
    loop: Loop,
    recipe: OptimizerRecipe | None = None,
    skipped: Sequence[Skipped] = (),
    overhead: float | None = None,
    target: str = "",
    budget_s: float = 60.0,
    cure: bool = True,
    tick: Tick = _quiet,
) -> Report:
    """The report on a captured training; with `problem=None` only what the loop showed is judged."""
    return _diagnosed(problem, loop, recipe, skipped, overhead, target, budget_s, cure, tick)[0]


def _diagnosed(
    problem: Problem | None, loop: Loop, recipe: OptimizerRecipe | None, skipped: Sequence[Skipped],
    overhead: float | None, target: str, budget_s: float, cure: bool, tick: Tick,
) -> tuple[Report, Evidence]:  # fmt: skip
    start = time.perf_counter()
    problem = _judged(problem)
    deadline = start + EXAMINE_SHARE * budget_s
    evidence, missing = gather(problem, loop, recipe, deadline, tick)
    suspicions, failed = suspect(evidence)
    if _unexplained(evidence, suspicions):
        evidence, unmeasured = _look_at_point(evidence, deadline + LATE_SHARE * budget_s, tick)
        suspicions, failed = suspect(evidence)
        missing += unmeasured
    examined = time.perf_counter() - start
    result, unraced = _raced(evidence, suspicions, budget_s - examined, tick) if cure else (None, [])
    findings = settle(evidence, suspicions, result, cure)
    report = Report(
        healthy=not any(f.severity == "problem" for f in findings),
        headline=headline(evidence, findings),
        target=target,
        findings=findings,
        figures=key_figures(evidence),
        skipped=(*skipped, *missing, *failed, *unraced),
        cost=Cost(overhead, examined, result.seconds if result else 0.0),
        charts=charts(evidence, result),
        unexplained=unexplained(evidence, findings),
    )
    return report, evidence


def _judged(problem: Problem | None) -> Problem | None:
    """The problem with the score that suits its classes; as it is where the user's model cannot be run."""
    if problem is None:
        return None
    try:
        with sandbox(0):
            return weighed(problem)
    except Exception:  # the probes will say what is wrong
        return problem


def gather(
    problem: Problem | None, loop: Loop, recipe: OptimizerRecipe | None, deadline: float, tick: Tick = _quiet
) -> tuple[Evidence, list[Skipped]]:
    """Run the probes until the deadline; what fails or does not fit is named in the second value."""
    evidence, missing = Evidence(loop, problem, recipe), []
    for place, (name, measure) in enumerate(PROBES if problem is not None else ()):
        began = time.perf_counter()
        if began > deadline:
            missing.append(Skipped(name, "the examination's share of the budget was used up"))
            continue
        tick(f"measuring {name}", place / len(PROBES))
        try:
            assert problem is not None
            found = measure(problem)
        except NotApplicable:
            continue
        except Exception as error:  # the user's own model runs inside: it may raise anything
            why = str(error) if isinstance(error, UnstuckError) else f"{type(error).__name__}: {error}"
            missing.append(Skipped(name, why))
            continue
        seconds = {**evidence.seconds, name: time.perf_counter() - began}
        evidence = replace(evidence, seconds=seconds, **{name: found})  # type: ignore[arg-type]
    return evidence, missing


def suspect(evidence: Evidence) -> tuple[list[Suspicion], list[Skipped]]:
    """What the rules make of the evidence, faults first, then by strength; and the rules that failed on it."""
    found, failed = [], []
    for rule in RULES:
        if any(getattr(evidence, need) is None for need in rule.needs):
            continue
        try:
            suspicion = rule.judge(evidence)
        except Exception as error:  # one rule that meets what it did not expect must not cost the report
            failed.append(Skipped(f"rule {rule.cause}", f"{type(error).__name__}: {error}"))
            continue
        if suspicion is not None:
            found.append(suspicion)
    return sorted(found, key=lambda s: (not s.fault, -s.strength)), failed


def _unexplained(evidence: Evidence, suspicions: Sequence[Suspicion]) -> bool:
    """True if a training fell short without a fault, and either stands still or has no other sure explanation: then
    the point where it stands may be one. (At a critical point other figures mean little: gradients are noise there.)"""
    if evidence.problem is None or evidence.level is None or sound(evidence) or any(s.fault for s in suspicions):
        return False
    stands = evidence.history is not None and evidence.history.stands
    return stands or not any(s.strength >= SURE for s in suspicions)


def _look_at_point(evidence: Evidence, deadline: float, tick: Tick) -> tuple[Evidence, list[Skipped]]:
    """The evidence with the curvature where the training was left, or why it could not be had."""
    began = time.perf_counter()
    assert evidence.problem is not None
    tick("measuring curvature", 1.0)
    try:
        found = curvature.measure(evidence.problem, max(LEAST_S, min(curvature.BUDGET_S, deadline - began)))
    except NotApplicable:
        return evidence, []
    except Exception as error:  # the user's own model runs inside
        why = str(error) if isinstance(error, UnstuckError) else f"{type(error).__name__}: {error}"
        return evidence, [Skipped("curvature", why)]
    seconds = {**evidence.seconds, "curvature": time.perf_counter() - began}
    return replace(evidence, seconds=seconds, curvature=found), []


def _raced(
    evidence: Evidence, suspicions: Sequence[Suspicion], budget_s: float, tick: Tick
) -> tuple[Race | None, list[Skipped]]:
    """The race, or why there is none: the control trains the user's own model with the user's own optimizer."""
    try:
        return _race(evidence, suspicions, budget_s, tick), []
    except Exception as error:  # an optimizer that wants a closure, a model that cannot be trained on a copy
        return None, [Skipped("race", f"a copy cannot be trained as the script does: {type(error).__name__}: {error}")]


def _race(evidence: Evidence, suspicions: Sequence[Suspicion], budget_s: float, tick: Tick) -> Race | None:
    # In a sound training a matter of degree can be no more than a note: only faults are worth a race.
    entered = [s for s in suspicions if s.fault or not fine(evidence, s)][:RACED]
    named = [lane for s in entered for lane in s.lanes[:2]]
    if not named or evidence.problem is None or evidence.problem.optimizer is None or budget_s < 1:
        return None
    best = _reachable(evidence)
    heats = [heat for heat in _heats(evidence.problem, named) if heat[1]]
    races = [
        race.run(race.enter(problem, some)[0], best, budget_s / len(heats), tick, mix) for problem, some, mix in heats
    ]
    if still := [pair for pair in named if pair[1].against == "as left"]:
        races.append(race.standing(race.enter(resumed(evidence.problem), still)[0], best))
    return race.together(races)


def _reachable(evidence: Evidence) -> float:
    """The highest score known to be reachable: the training's own, or a fair reference's."""
    level, references = evidence.level, evidence.references
    known = [0.0] if level is None else [0.0, level.train.value]
    if level is not None and references is not None and references.informative and references.metric == level.metric:
        known.append(references.fair.held_out)
    return max(known)


def _heats(
    problem: Problem, named: Sequence[tuple[str, Remedy]]
) -> tuple[tuple[Problem, list[tuple[str, Remedy]], bool], ...]:
    """Remedies by the control that they race against: the problem it trains, who races, may seeds draw other starts."""
    by = {kind: [pair for pair in named if pair[1].against == kind] for kind in ("anew", "own start", "from the end")}
    late = [(resumed(problem), by["from the end"], False)] if by["from the end"] else []
    return (problem, by["anew"], True), (problem, by["own start"], False), *late
