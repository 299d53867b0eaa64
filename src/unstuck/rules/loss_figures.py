"""What the loss sends back for wrong predictions, as evidence of a rule on the loss."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure


def dead(evidence: Evidence) -> tuple[Figure, ...]:
    """The share of wrong predictions that the loss has all but given up where the training was left; nothing where it
    is not known, or there are none."""
    end = evidence.loss.end if evidence.loss is not None else None
    if end is None or not end.dead:
        return ()
    name = "wrong predictions that get under a hundredth of cross-entropy's gradient"
    return (Figure(name, end.share, error=end.error, samples=end.wrong),)
