"""softmax-applied-twice: probabilities fed to a loss that applies softmax itself."""

from __future__ import annotations

import itertools

from torch import Tensor

from unstuck.evidence import Evidence
from unstuck.probes.objective import SHAPES, SOFTMAXES, TOLERANCE, dimension
from unstuck.records import Figure
from unstuck.remedies.rewrite import drop_call
from unstuck.rules.loss_figures import dead
from unstuck.rules.rule import Rule, Suspicion
from unstuck.trace import Seen


def judge(evidence: Evidence) -> Suspicion | None:
    """A softmax whose probabilities reach a cross-entropy on logits, or another softmax over the same classes.

    A log-softmax (or the log of a softmax) is idempotent: applied again it changes nothing, so that is no finding.
    """
    found = _before_the_loss(evidence) or _before_another(evidence)
    if found is None:
        return None
    call, values, again, axis = found
    return Suspicion(
        cause="softmax-applied-twice",
        strength=0.97,
        where=call.where,
        summary=f"{call.where} turns the outputs into probabilities, and {again} applies softmax to them again: "
        "the loss cannot get near zero and its gradient is squeezed.",
        evidence=(
            Figure("sum of one output row", float(values.sum(axis).mean()), samples=len(values)),
            Figure("largest output", float(values.max()), samples=values.numel()),
            Figure("smallest output", float(values.min()), samples=values.numel()),
            *dead(evidence),
        ),
        remedies=(
            drop_call(
                call.key,
                "drop-extra-softmax",
                f"leave out the {call.name} at {call.where}: {again} takes logits",
                f"remove {call.where}: {again} applies its own",
            ),
        ),
        fault=True,
    )


Found = tuple[Seen, Tensor, str, int]
"""The softmax, its probabilities, what applies softmax to them again, and the dimension of the classes."""


def _before_the_loss(evidence: Evidence) -> Found | None:
    anatomy, objective, problem = evidence.anatomy, evidence.objective, evidence.problem
    assert anatomy is not None and objective is not None and problem is not None
    call, output = objective.softmax, anatomy.output
    if problem.criterion.kind != "cross_entropy" or call is None or output is None:
        return None
    if objective.form != "probabilities" or objective.axis != objective.classes:
        return None
    return call, output.detach(), "cross-entropy", objective.classes


def _before_another(evidence: Evidence) -> Found | None:
    """In the head: a softmax, and right behind it one that runs over the same dimension."""
    assert evidence.anatomy is not None
    calls = [call for call in evidence.anatomy.head if call.name not in SHAPES]
    for call, behind in itertools.pairwise(calls):
        taken = behind.args[0] if behind.args else behind.kwargs.get("input")
        if call.name == "softmax" and behind.name in SOFTMAXES and isinstance(taken, Tensor):
            values, axis = taken.detach(), dimension(behind)
            if isinstance(axis, int) and bool(((values.sum(axis) - 1).abs() < TOLERANCE).all()):
                return call, values, f"{behind.name} at {behind.where}", axis
    return None


RULE = Rule(
    cause="softmax-applied-twice",
    lesson="Cross-entropy in PyTorch takes logits and applies log-softmax itself. Fed with probabilities it sees "
    "numbers between 0 and 1 only: even a perfect prediction leaves a loss of log(1 + (C-1)/e), and gradients are "
    "small.",
    told_by="A softmax call stands between the last layer and F.cross_entropy, and rows sum to 1 over the classes.",
    cures="Hand the logits to the loss; apply softmax only where probabilities are read.",
    needs=("anatomy", "objective"),
    judge=judge,
)
