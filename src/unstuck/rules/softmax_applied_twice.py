"""softmax-applied-twice: probabilities fed to a loss that applies softmax itself."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.rewrite import drop_call
from unstuck.rules.rule import Rule, Suspicion


def judge(evidence: Evidence) -> Suspicion | None:
    """A softmax before a cross-entropy on logits, whose rows sum to 1 over the classes when they reach the loss.

    A log-softmax (or the log of a softmax) is idempotent: applied again it changes nothing, so that is no finding.
    """
    anatomy, objective, problem = evidence.anatomy, evidence.objective, evidence.problem
    assert anatomy is not None and objective is not None and problem is not None
    call, output = objective.softmax, anatomy.output
    if problem.criterion.kind != "cross_entropy" or call is None or output is None:
        return None
    if objective.form != "probabilities" or objective.axis != objective.classes:
        return None
    values = output.detach()
    return Suspicion(
        cause="softmax-applied-twice",
        strength=0.97,
        where=call.where,
        summary=f"{call.where} turns the outputs into probabilities, and cross-entropy applies softmax to them again: "
        "the loss cannot get near zero and its gradient is squeezed.",
        evidence=(
            Figure("sum of one output row", float(values.sum(objective.classes).mean()), samples=len(values)),
            Figure("largest output", float(values.max()), samples=values.numel()),
            Figure("smallest output", float(values.min()), samples=values.numel()),
        ),
        remedies=(
            drop_call(
                call.key,
                "drop-extra-softmax",
                f"hand the loss the logits: leave out the {call.name} at {call.where}",
                f"remove {call.where}: cross_entropy applies log_softmax itself",
            ),
        ),
        fault=True,
    )


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
