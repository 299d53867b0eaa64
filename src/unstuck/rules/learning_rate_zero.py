"""learning-rate-zero: the optimizer steps, with a rate of 0, and nothing moves."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.learning_rate import change_learning_rate
from unstuck.remedies.schedule import constant_schedule, shorter_warmup
from unstuck.rules.rule import Rule, Suspicion

NOTHING = 1e-10
"""A rate below this moves no float32 weight of usual size: its step is under half a unit in the last place."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Every step was made at a rate of 0, in every group."""
    problem, loop, recipe = evidence.problem, evidence.loop, evidence.recipe
    recipe = recipe or (problem.optimizer if problem else None)
    if recipe is None or not loop.stepping:
        return None
    base = max((abs(float(hyper.get("lr", 1.0))) for hyper, _ in recipe.groups), default=1.0)
    largest = max(map(abs, loop.lrs), default=base)
    if base > NOTHING and not (len(loop.lrs) > 1 and largest <= NOTHING):
        return None
    moved = evidence.gradients.moved if evidence.gradients else float("nan")
    remedies = []
    if problem is not None and problem.optimizer is not None:
        if base > NOTHING:
            remedies = [constant_schedule(problem), shorter_warmup(problem)]
        else:
            suggested = evidence.rates.suggested if evidence.rates else (1e-3,)
            remedies = [change_learning_rate(problem, rate) for rate in suggested]
    site = recipe.site.rsplit("/", 1)[-1]
    return Suspicion(
        cause="learning-rate-zero",
        strength=1.0,
        where=evidence.loop.scheduler.rsplit("/", 1)[-1] if base > NOTHING else site,
        summary=f"The learning rate was {largest:.2g} at every one of {len(loop.lrs) or loop.steps} steps: "
        "no parameter moves.",
        evidence=(
            Figure("largest learning rate of any step", largest, samples=len(loop.lrs)),
            Figure("distance the parameters moved / their norm", moved),
        ),
        remedies=tuple(remedies),
        fault=True,
    )


RULE = Rule(
    cause="learning-rate-zero",
    lesson="A rate of 0 multiplies every step by nothing. It comes of an integer division, a schedule that never "
    "leaves its first value, or an argument that was not passed on.",
    told_by="The rate was 0 at every step.",
    cures="A rate that a short range test finds (the figure is filled in).",
    needs=(),
    judge=judge,
)
