"""not-shuffled: batches are slices of ordered data, so that consecutive steps learn one class after the other."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.batches import shuffle
from unstuck.rules.rule import Rule, Suspicion
from unstuck.rules.words import line

ALIKE = 0.15
"""Share of the targets' variance between batches beyond chance; unsorted real data (digits, Fashion-MNIST in their
given order) show 0.00 ± 0.01, sorted classes 0.95 and more."""

SORTED = 0.8
"""From here on a batch holds little more than one class; a sampler of a few classes a batch stays below."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Batches differ more than any of 200 permutations of their samples would."""
    order = evidence.order
    assert order is not None
    if order.excess < ALIKE or order.between <= order.largest:
        return None
    if not order.sequential and order.excess < SORTED:
        return None  # drawn at random, samples that resemble their neighbours (windows of a text) are no fault
    problem = evidence.problem
    assert problem is not None
    own = "; the data is taken in its own order." if order.sequential else "."
    return Suspicion(
        cause="not-shuffled",
        strength=min(0.97, 0.5 + 0.5 * order.excess),
        where=line(evidence.loop.loss_site),
        summary=f"Batches are not mixed: {order.between:.0%} of the targets' variance lies between batches, where "
        f"mixed samples would give {order.chance:.0%}{own}",
        evidence=(
            Figure("variance of the targets between batches", order.between, samples=order.samples),
            Figure("the same after mixing", order.chance, samples=order.samples),
            Figure("largest of 200 mixings", order.largest, samples=order.samples),
        ),
        remedies=(shuffle(),),
        fault=order.excess >= SORTED
        and problem is not None
        and problem.criterion.task in {"classes", "binary", "onehot"},
    )


RULE = Rule(
    cause="not-shuffled",
    lesson="A batch stands for the whole data: its gradient is an estimate of the whole's. A batch of one class "
    "teaches to answer that class, and the next batch to forget it.",
    told_by="The batches' mean targets differ by more than under any of 200 permutations of the samples.",
    cures="shuffle=True, or a fresh random permutation every epoch.",
    needs=("order",),
    judge=judge,
)
