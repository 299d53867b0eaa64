"""From suspicions and what the race measured to ranked findings, a headline and key figures.

A *fault* (a call that cannot be meant so) is a problem unless the race shows that mending it changes nothing in a
training that came far. A matter of *degree* is a problem only where changing it was seen to help a training that fell
short. Rank: faults before degrees, what the race proved before the rest, then by the effect measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec.structs import replace

from unstuck.evidence import Evidence
from unstuck.probes.level import Level
from unstuck.probes.references import INFORMATIVE
from unstuck.race.race import Race
from unstuck.records import Figure, Finding, Outcome, Severity, Verdict
from unstuck.remedies.remedy import Remedy
from unstuck.rules.overfitting import overfits
from unstuck.rules.rule import Suspicion

SOUND = 0.9
"""A training that learnt this share of what lies above chance is sound: what still could be better is a note. Above
chance lies what a reference model reaches on samples it never saw, or a perfect score where there is no reference.
Measured on healthy trainings of the gallery the share was 0.97 to 1.3 (diabetes 1.2, digits with a tenth of wrong
labels 1.03, Fashion-MNIST 1.1, texts against trigrams 1.1 to 1.6), on most sick ones below 0.7."""

UP_TO = 0.93
"""The same against a reference: on the data it trained on a sound network comes up to what a linear model or a small
well-made network reaches on fresh data (see above); a saturated one that stopped at 0.906 of it was sick."""

OUTGROWN = 2.0
"""A reference that the training passed by this factor does not say what could be reached: what a rule is sure of may
still be proved by the race. Beside healthy trainings the share is at most 1.6 (see above); a factorization that plain
descent left at R² 0.51, where Adam reaches more, had 3.3 times its reference, which sees ids as numbers."""

LITTLE = 0.1
"""Of what lies above chance: a training that learnt less has not begun."""

UNSCALED, REMOVED = "negative loss", 0.75
"""Where neither accuracy nor R² is known (a contrastive loss, say), a training that removed this share of its initial
loss counts as sound: the gallery's healthy one removed 0.78."""

MOST_PROBLEMS = 3

SURE, LIKELY, WEAK = 0.9, 0.8, 0.5
"""Strengths. In a training that fell short, what no race could test is a problem where the rule is sure by itself (with
`--no-cure`: where it is likely). What a rule holds for weak is often a consequence that a generic remedy cures too."""

RANK: dict[Outcome, int] = {"cured": 0, "helped": 1, "not-tried": 2, "undecided": 3, "no-effect": 4, "worse": 5}


def settle(evidence: Evidence, suspicions: Sequence[Suspicion], race: Race | None, cure: bool) -> tuple[Finding, ...]:
    """The findings in rank order, at most three of them problems."""
    found = [_finding(evidence, s, race, cure) for s in suspicions]
    kept = [(f, s) for f, s in zip(found, suspicions, strict=True) if f is not None]
    kept.sort(key=lambda pair: _order(*pair))
    findings: list[Finding] = []
    for finding, _ in kept:
        crowded = sum(f.severity == "problem" for f in findings) >= MOST_PROBLEMS
        if crowded and finding.severity == "problem":
            finding = replace(finding, severity="warning")
        findings.append(finding)
    return tuple(findings)


def sound(evidence: Evidence) -> bool:
    """True if the training came close to what can be reached on its data, and neither fell back from there nor falls
    behind on fresh ones."""
    level = evidence.level
    if level is None or not math.isfinite(level.learnt):
        return False
    if (evidence.history is not None and evidence.history.rose) or _worse_than_at_first(evidence, level):
        return False
    if evidence.generalization is not None and overfits(evidence.generalization):
        return False
    if level.metric == UNSCALED:
        return 0 < level.train.loss <= (1 - REMOVED) * level.initial.loss
    reached = share_of_reference(evidence)
    return _above_chance(evidence) >= SOUND or (reached is not None and reached >= UP_TO)


def _worse_than_at_first(evidence: Evidence, level: Level) -> bool:
    recipe = evidence.problem.optimizer if evidence.problem is not None else None
    climbs = recipe is not None and any(hyper.get("maximize") for hyper, _ in recipe.groups)
    return level.train.loss < level.initial.loss if climbs else level.train.loss > level.initial.loss


def fine(evidence: Evidence, suspicion: Suspicion) -> bool:
    """True if the training is too sound for this suspicion, a matter of degree, to be more than a note."""
    if not sound(evidence):
        return False
    return (
        suspicion.strength < SURE or _above_chance(evidence) >= SOUND or (share_of_reference(evidence) or 0) < OUTGROWN
    )


def _above_chance(evidence: Evidence) -> float:
    # In evaluation mode: what a user is left with (batch statistics that only hold in training mode are no success).
    level = evidence.level
    return (level.train.value - level.chance) / max(1 - level.chance, 1e-9) if level else float("nan")


def share_of_reference(evidence: Evidence) -> float | None:
    """The training's score above chance over the best fair reference's; None where no reference knows anything.

    Fair: on rows it was not fitted to; of texts the trigram table, which small networks pass in a few hundred steps.
    """
    level, references = evidence.level, evidence.references
    if level is None or references is None or not references.informative or references.metric != level.metric:
        return None
    # Where the script's own noise hides the inputs, what is readable without it counts.
    calm = evidence.redraw.averaged if evidence.redraw is not None else float("nan")
    reach, chance = max(references.fair.held_out, calm if math.isfinite(calm) else 0.0), references.chance
    if reach <= chance + INFORMATIVE * references.error:
        return None
    return (level.train.value - chance) / (reach - chance)


def _finding(evidence: Evidence, suspicion: Suspicion, race: Race | None, cure: bool) -> Finding | None:
    remedy, verdict = _best(suspicion, race)
    severity = _severity(evidence, suspicion, verdict, cure)
    if severity is None:
        return None
    return Finding(
        cause=suspicion.cause,
        severity=severity,
        strength=round(suspicion.strength, 3),
        where=suspicion.where,
        summary=suspicion.summary,
        evidence=suspicion.evidence,
        remedy=remedy.line if remedy else None,
        verdict=verdict,
    )


def _best(suspicion: Suspicion, race: Race | None) -> tuple[Remedy | None, Verdict]:
    """The suspicion's remedy that did best in the race, and its verdict."""
    known = race.verdicts if race is not None else {}
    tried = [(remedy, known[name]) for name, remedy in suspicion.lanes if name in known]
    if not tried:
        return (suspicion.remedies[0] if suspicion.remedies else None), Verdict()
    return min(tried, key=lambda pair: (RANK[pair[1].outcome], -effect(pair[1])))


def effect(verdict: Verdict) -> float:
    """Remedied minus control; 0 where either is unknown."""
    if verdict.control is None or verdict.remedied is None:
        return 0.0
    return verdict.remedied - verdict.control


def _severity(evidence: Evidence, suspicion: Suspicion, verdict: Verdict, cure: bool) -> Severity | None:
    well = sound(evidence)
    if suspicion.fault:
        # A race much shorter than the training cannot say that the fault does no harm.
        told = verdict.steps >= evidence.loop.steps / 2
        return "warning" if well and told and verdict.outcome in {"no-effect", "worse"} else "problem"
    if verdict.outcome in {"cured", "helped"}:
        return "note" if fine(evidence, suspicion) else "problem"
    if verdict.outcome == "not-tried" and not well:
        return "problem" if suspicion.strength >= (SURE if cure else LIKELY) else "warning"
    if verdict.outcome == "undecided" and not well:
        return "warning"
    return None


def _order(finding: Finding, suspicion: Suspicion) -> tuple[int, bool, int, float]:
    severity = ("problem", "warning", "note").index(finding.severity)
    proved = finding.verdict.outcome in {"cured", "helped"}
    if proved and suspicion.strength >= WEAK:
        tier = 0
    elif finding.verdict.outcome == "not-tried" and suspicion.strength >= SURE:
        tier = 1  # the race could not test it, and the evidence is specific: before what a generic remedy cures
    else:
        tier = 2 if proved else 3
    return severity, not suspicion.fault, tier, -effect(finding.verdict) * suspicion.strength


def headline(evidence: Evidence, findings: Sequence[Finding]) -> str:
    """One sentence a person understands."""
    problems = [f for f in findings if f.severity == "problem"]
    if problems:
        where = problems[0].where or "in the loop"
        return f"This training has a problem: {problems[0].cause}, {where}{_gain(problems[0])}."
    level = evidence.level
    if evidence.problem is None:
        return "No training could be examined; what was looked for, and what is missing, stands below."
    if level is None:
        return "Nothing wrong was found in what could be measured."
    if sound(evidence):
        return f"This training is healthy: it reaches {_standing(evidence, level)}."
    history = evidence.history
    if level.metric == UNSCALED and history is not None:
        return f"Nothing wrong was found: the loss went from {history.first:.3g} to {history.last:.3g}."
    if not unexplained(evidence, findings):
        return f"Nothing wrong was found: it reaches {_standing(evidence, level)}."
    if findings and findings[0].severity == "warning":
        return f"Undecided: {findings[0].cause} is suspected, but not proven, to explain {_standing(evidence, level)}."
    return f"No cause was found that explains {_standing(evidence, level)}."


def unexplained(evidence: Evidence, findings: Sequence[Finding]) -> bool:
    """True if no finding is a problem, though the training learnt next to nothing, or falls short of a reference."""
    level = evidence.level
    if level is None or level.metric == UNSCALED or any(f.severity == "problem" for f in findings) or sound(evidence):
        return False
    return share_of_reference(evidence) is not None or not _above_chance(evidence) > LITTLE


def _gain(finding: Finding) -> str:
    verdict = finding.verdict
    if verdict.outcome not in {"cured", "helped"} or verdict.control is None or verdict.remedied is None:
        return ""
    return f"; with it mended, {verdict.metric} goes from {verdict.control:.3g} to {verdict.remedied:.3g}"


def _standing(evidence: Evidence, level: Level) -> str:
    """The score reached, beside what a reference and a constant get."""
    if level.metric == UNSCALED:
        return f"a loss of {level.train.loss:.3g} on its training data, which was {level.initial.loss:.3g} at the start"
    own = f"{_article(level.metric)} {level.metric} of {level.train.value:.3g} on its training data"
    references = evidence.references
    if references is None or not references.informative or references.metric != level.metric:
        return f"{own}, where a constant prediction gets {level.chance:.3g}"
    fair = references.fair
    return (
        f"{own}, where a {fair.name} reaches {fair.held_out:.3g} on samples it did not see "
        f"and a constant prediction {references.chance:.3g}"
    )


def _article(word: str) -> str:
    return "an" if word[0] in "aeiouR" else "a"


def key_figures(evidence: Evidence) -> tuple[Figure, ...]:
    """The figures that say how the training stands."""
    level, history = evidence.level, evidence.history
    figures = []
    if level is not None:
        figures.append(Figure(f"train {level.metric}", level.train.value, samples=level.train.samples))
        if level.held_out is not None:
            figures.append(
                Figure(
                    f"{level.metric} on other recorded batches", level.held_out.value, samples=level.held_out.samples
                )
            )
        if level.validation is not None:
            figures.append(
                Figure(f"{level.metric} on the script's validation data", level.validation.value,
                       samples=level.validation.samples)
            )  # fmt: skip
        figures += _reference_figures(evidence)
        figures.append(Figure(f"{level.metric} of a constant prediction", level.chance))
    if history is not None:
        figures += [
            Figure("loss at the start", history.first),
            Figure("loss at the end", history.last, error=history.noise),
        ]
    return tuple(figures)


def _reference_figures(evidence: Evidence) -> list[Figure]:
    references = evidence.references
    if references is None:
        return []
    return [
        Figure(f"held-out {references.metric} of a {model.name}", model.held_out, samples=references.held_rows)
        for model in references.models
    ]
