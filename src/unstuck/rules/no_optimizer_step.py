"""no-optimizer-step: gradients are computed, and no step (or hardly one) is taken along them."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.loop import Loop
from unstuck.records import Figure
from unstuck.remedies.loop import hold, step_every_time
from unstuck.remedies.remedy import Remedy
from unstuck.rules.rule import Rule, Suspicion
from unstuck.rules.words import layers_of, line, listed

ENOUGH = 5
"""Fewer backward passes than this prove nothing: the script may have raised an error before its first step."""


def judge(evidence: Evidence) -> Suspicion | None:
    """No step at all; or gradients of several backward passes thrown away per step; or an optimizer that rests."""
    loop = evidence.loop
    if loop.by_hand or loop.backwards < ENOUGH or loop.detached:
        return None
    if evidence.numbers is not None and evidence.numbers.overflown:
        return None  # a scaler that finds infinite gradients takes no step: precision-loss
    said = _said(evidence, loop)
    if said is None:
        return None
    where, summary, remedy = said
    return Suspicion(
        cause="no-optimizer-step",
        strength=0.99,
        where=where,
        summary=summary,
        evidence=(
            Figure("backward passes", float(loop.backwards)),
            Figure("optimizer steps", float(loop.steps)),
            *(
                (Figure("loss at the start", loop.losses[0]), Figure("loss at the end", loop.losses[-1]))
                if loop.losses
                else ()
            ),
        ),
        remedies=(remedy,),
        fault=True,
    )


def _said(evidence: Evidence, loop: Loop) -> tuple[str, str, Remedy] | None:
    """Where, in which words, and what to do."""
    if loop.steps == 0:
        made = evidence.recipe.site if evidence.recipe is not None else ""
        words = "the optimizer made there never steps" if made else "no optimizer was seen"
        return (
            line(made or loop.loss_site),
            f"backward() ran {loop.backwards} times and no parameter was ever updated: {words}.",
            step_every_time(),
        )
    if loop.discarded > 0.5 and loop.accumulate > 1:
        return (
            line(loop.loss_site),
            f"The optimizer steps once in {loop.accumulate} backward passes, and the gradients of all but the last are "
            "cleared unused.",
            step_every_time(),
        )
    if loop.resting:
        return (
            listed(layers_of(loop.resting)),
            f"The optimizer that holds {listed(layers_of(loop.resting))} never steps, while another does.",
            hold(loop.resting, "step() both optimizers after backward()"),
        )
    return None


RULE = Rule(
    cause="no-optimizer-step",
    lesson="backward() only fills .grad; it is optimizer.step() that changes parameters. It is missed where it stands "
    "outside the loop, behind a condition that never holds, or where scheduler.step() was written in its stead.",
    told_by="Backward passes were seen and no optimizer step, nor any other change of the parameters; or most "
    "gradients are cleared before a step uses them.",
    cures="optimizer.step() after each backward pass.",
    needs=(),
    judge=judge,
)
