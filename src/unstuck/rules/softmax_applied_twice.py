"""softmax-applied-twice: probabilities or log-probabilities fed to a loss that applies softmax itself."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.rewrite import drop_call
from unstuck.rules.rule import Rule, Suspicion

SOFTMAXES = frozenset({"softmax", "log_softmax"})


def judge(evidence: Evidence) -> Suspicion | None:
    """A softmax in the head of a cross-entropy on logits, over the dimension of the classes."""
    anatomy = evidence.anatomy
    assert anatomy is not None
    if anatomy.criterion is None or evidence.problem is None or evidence.problem.criterion.kind != "cross_entropy":
        return None
    call = next((c for c in anatomy.head if c.name in SOFTMAXES), None)
    if call is None or anatomy.output is None:
        return None
    # A log-softmax is idempotent: applied again it changes nothing, so that alone harms nobody.
    harmless = call.name == "log_softmax"
    output = anatomy.output.detach()
    sums = float((output.exp() if harmless else output).sum(1).float().mean())
    largest, smallest = float(output.max()), float(output.min())
    remedy = drop_call(
        call.key,
        "drop-extra-softmax",
        f"hand the loss the logits: leave out the {call.name} at {call.where}",
        f"remove {call.where}: cross_entropy applies log_softmax itself",
    )
    return Suspicion(
        cause="softmax-applied-twice",
        strength=0.3 if harmless else 0.97,
        where=call.where,
        summary=f"{call.where} turns the outputs into probabilities, and cross-entropy applies softmax to them again: "
        "the loss cannot get near zero and its gradient is squeezed.",
        evidence=(
            Figure("sum of one output row", sums, samples=len(anatomy.output)),
            Figure("largest output", largest, samples=anatomy.output.numel()),
            Figure("smallest output", smallest, samples=anatomy.output.numel()),
        ),
        remedies=(remedy,),
        fault=not harmless,
    )


RULE = Rule(
    cause="softmax-applied-twice",
    lesson="Cross-entropy in PyTorch takes logits and applies log-softmax itself. Fed with probabilities it sees "
    "numbers between 0 and 1 only: even a perfect prediction leaves a loss of log(1 + (C-1)/e), and gradients are small.",
    told_by="A softmax (or log-softmax) call stands between the last layer and F.cross_entropy.",
    cures="Hand the logits to the loss; apply softmax only where probabilities are read.",
    needs=("anatomy",),
    judge=judge,
)
