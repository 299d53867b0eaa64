"""overfitting: the training loss keeps falling while the validation loss rises."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.probes.generalization import Generalization
from unstuck.records import Figure
from unstuck.remedies.early_stopping import stop_early
from unstuck.rows import most
from unstuck.rules.rule import Rule, Suspicion

RISEN = 1.2
"""Validation loss at the end over its lowest. Prechelt (1998, "Early stopping, but when?") stops at 1.05 to 1.2."""

SURE = 3.0
"""Standard errors by which the rise must exceed 0."""

APART = 0.08
"""Score on training samples minus that on validation samples."""


def judge(evidence: Evidence) -> Suspicion | None:
    """On the script's own validation data: a significant rise, a falling training loss, scores far apart."""
    found = evidence.generalization
    assert found is not None
    if not overfits(found):
        return None
    best, last = found.best, found.last
    rise, error = found.rise
    return Suspicion(
        "overfitting",
        min(0.95, 0.6 + 0.2 * (last.loss / max(best.loss, 1e-12) - 1)),
        f"from step {best.step} on",
        f"The validation loss was lowest ({best.loss:.3g}) around step {best.step} and rose to {last.loss:.3g}, while "
        f"the training loss fell to {last.train_loss:.2g}: the network learns its training samples by heart.",
        (
            Figure("validation loss at the end", last.loss, samples=found.samples),
            Figure("rise of the validation loss since its lowest", rise, error=error, samples=found.samples),
            Figure(f"train {found.metric} minus validation {found.metric}", last.train_score - last.score),
        ),
        (stop_early(best.step, _per_epoch(evidence), _risen(found)),),
        fault=True,
    )


def _risen(found: Generalization) -> int:
    """The first recorded step at which half of the rise, or `RISEN`, is reached."""
    best, last = found.best, found.last
    level = min(RISEN * best.loss, (best.loss + last.loss) / 2)
    return next(p.step for p in found.points if p.step > best.step and p.loss >= level)


def overfits(found: Generalization) -> bool:
    """True if validation shows clearly that the training went on too long."""
    best, last = found.best, found.last
    rise, error = found.rise
    falling = last.train_loss < 0.9 * best.train_loss
    return falling and last.loss > RISEN * best.loss and rise > SURE * error and last.train_score - last.score > APART


def _per_epoch(evidence: Evidence) -> int:
    problem = evidence.problem
    if problem is None or problem.rows is None or len(problem.rows) > most(problem.rows.batch) - problem.rows.batch:
        return 0
    return max(1, len(problem.rows) // max(problem.rows.batch, 1))


RULE = Rule(
    cause="overfitting",
    lesson="With few samples and many weights a network can learn every training sample by heart. From some step on it "
    "fits what is accidental in them: the training loss falls on, the loss on other samples rises.",
    told_by="At the recorded states along the way the loss on the script's own validation data rises by a fifth or "
    "more, while that on training data falls.",
    cures="Stop at the lowest validation loss; more data, weight decay, dropout, a smaller network.",
    needs=("generalization",),
    judge=judge,
)
