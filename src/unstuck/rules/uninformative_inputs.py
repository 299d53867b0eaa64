"""uninformative-inputs: nothing to learn in what the network is given."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.look import look
from unstuck.rules.labels_wrong import STRUCTURED, known
from unstuck.rules.rule import Rule, Suspicion

RELEASED = 0.1
"""Accuracy that a reference must gain on averaged draws for noise, not lack of information, to be the cause."""


def judge(evidence: Evidence) -> Suspicion | None:
    """No reference, nor the network itself, beats the constant on held-out rows, and the inputs look like noise."""
    references, redraw = evidence.references, evidence.redraw
    assert references is not None
    if not references.empty or references.structure >= STRUCTURED:
        return None
    if redraw is not None and redraw.averaged > redraw.once + RELEASED:
        return None
    fixed = references.constant > 0.99
    like = "are the same for every sample" if fixed else "look like white noise"
    anew = redraw is not None and redraw.noise > 0.9 and not fixed
    return Suspicion(
        "uninformative-inputs",
        0.95,
        _where(evidence),
        f"The inputs that reach the model {like}"
        + (" and are drawn anew each time" if anew else "")
        + ": no reference model does better on other samples than a constant prediction.",
        (
            *known(references),
            Figure("structure of the inputs (0: white noise)", references.structure, samples=references.rows),
            *((Figure("share of an input that changes between draws", redraw.noise),) if redraw is not None else ()),
        ),
        (
            look(
                "look-at-inputs",
                "look at a batch as it reaches the model, and go back from there to where the information is lost",
                "x, y = next(iter(train_loader)); print(x[0], x.mean(), x.std())  # compare with the raw sample",
            ),
        ),
        fault=True,
    )


def _where(evidence: Evidence) -> str:
    name = evidence.problem.model_name if evidence.problem is not None else "the model"
    return f"the inputs of {name}"


RULE = Rule(
    cause="uninformative-inputs",
    lesson="A network can only find what its inputs hold. A transform that overwrites the image, a wrong column, a "
    "division of integers leave noise or constants, and every model stays at chance.",
    told_by="Neither a linear model nor a small network, nor the network itself, beats a constant on held-out "
    "samples, and the inputs' correlations are those of white noise.",
    cures="Look at a batch as it reaches the model and repair the step that loses the information.",
    needs=("references",),
    judge=judge,
)
