"""gradients-accumulate: every backward pass adds to the gradients of all earlier ones."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.loop import clear_gradients
from unstuck.rules.rule import Rule, Suspicion
from unstuck.rules.words import layers_of, line, listed

OFTEN = 0.5
"""Deliberate accumulation clears after each step (share 0); a forgotten `zero_grad` never does (share 1)."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Most steps began with gradients of earlier steps still in place, and the backward pass added to them."""
    loop = evidence.loop
    if loop.uncleared <= OFTEN or loop.steps < 2:
        return None
    norms = [norm for _, norm in loop.gradient_norms]
    whose = "of these layers " if loop.kept else ""
    return Suspicion(
        cause="gradients-accumulate",
        strength=0.98,
        where=listed(layers_of(loop.kept)) if loop.kept else line(loop.loss_site),
        summary=f"Gradients {whose}are never cleared: each backward pass adds to those "
        "of all earlier steps, so every step follows the sum of the whole past.",
        evidence=(
            Figure("steps that began with old gradients", loop.uncleared, samples=loop.steps),
            *(Figure(f"gradient norm, {when} seen", norms[at]) for when, at in (("first", 0), ("last", -1)) if norms),
            *((Figure("loss at the end", loop.losses[-1], samples=len(loop.losses)),) if loop.losses else ()),
        ),
        remedies=(clear_gradients(),),
        fault=True,
    )


RULE = Rule(
    cause="gradients-accumulate",
    lesson="backward() adds to .grad, so that a loss may come in parts. Without zero_grad() the gradient of step 500 "
    "is the sum of 500 gradients, taken at 500 different points: the steps grow, and point to the past.",
    told_by="The first backward pass after a step finds that step's gradients still there and adds to them.",
    cures="optimizer.zero_grad() once per step. (Accumulating a few batches and clearing after the step is fine.)",
    needs=(),
    judge=judge,
)
