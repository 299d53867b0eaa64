"""schedule-decays-too-early: the schedule shrank the step while there was progress to make, or never let it grow."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.schedule import constant_schedule, shorter_warmup
from unstuck.rules.rule import Rule, Suspicion

SPENT = 0.15
"""Mean rate over the peak rate. Cosine and linear decay to zero give 0.5, three drops by ten at thirds 0.37, one at a
third 0.4: a schedule below this has spent most steps at next to no rate."""

LEFT = 0.4
"""Share of the steps made after the rate had fallen to less than a tenth, from which it may have fallen too early:
cosine decay has 0.2, linear decay 0.1, drops by ten at a half and three quarters 0.25. The race decides."""


def judge(evidence: Evidence) -> Suspicion | None:
    """The mean rate is a small share of the peak, or the rate is still rising at the end, far below its goal."""
    problem, loop = evidence.problem, evidence.loop
    course = loop.schedule
    if problem is None or problem.optimizer is None or len(course) < 10 or max(course) <= 0:
        return None
    if max(course) * problem.optimizer.lr < 1e-10:
        return None
    peak = max(1.0, max(course))
    rising = course[-1] >= 0.99 * max(course) and course[0] < course[-1]
    mean = sum(course) / len(course) / peak
    top = course.index(max(course))
    faded = next((i for i, factor in enumerate(course) if i > top and factor < 0.0999 * peak), 0)
    early = bool(faded) and not rising and len(course) - faded >= LEFT * len(course)
    if mean > SPENT and not early:
        return None
    what = (
        f"The warm-up has reached {max(course):.2g} of the learning rate after {len(course)} steps."
        if rising
        else f"After {faded} of {len(course)} steps the schedule has cut the learning rate to a tenth, "
        f"at the end it is {course[-1] / peak:.1g} of its peak."
    )
    constant = constant_schedule(problem, faded)
    return Suspicion(
        cause="schedule-decays-too-early",
        strength=0.95 if mean < SPENT / 3 else 0.8 if mean < SPENT else 0.6,
        where=loop.scheduler.rsplit("/", 1)[-1] or "schedule of the learning rate",
        summary=what,
        evidence=(
            Figure("mean learning rate / peak", mean, samples=len(course)),
            Figure("last learning rate / peak", course[-1] / peak, samples=len(course)),
            Figure("learning rate of the optimizer", problem.optimizer.lr),
        ),
        remedies=(shorter_warmup(problem), constant) if rising else (constant,),
    )


RULE = Rule(
    cause="schedule-decays-too-early",
    lesson="A schedule counts its own steps: called once a batch instead of once an epoch it is through in a moment, "
    "and a warm-up longer than the training never ends. Either way the network hardly moves.",
    told_by="The mean learning rate over the training is below 15 % of its peak, or two fifths of the steps were made "
    "at less than a tenth of it; and the same training at a constant rate learns more.",
    cures="Step the schedule once an epoch, give it the training's true length, or hold the rate constant.",
    needs=(),
    judge=judge,
)
