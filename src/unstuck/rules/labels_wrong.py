"""labels-wrong: a large share of the labels does not go with the inputs."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.probes.references import References
from unstuck.records import Figure
from unstuck.remedies.clean_labels import keep_believed, settle_labels
from unstuck.remedies.look import look
from unstuck.rules.rule import Rule, Suspicion

CONTRADICTED = 0.05
"""Share of samples whose label changes when they are drawn again; a sound data set has 0."""

NOISY = 0.25
"""Share of doubted labels worth a word. Real data sets have 0.2 to 10 % of wrong labels (Northcutt, Athalye & Mueller
2021: CIFAR-10 0.5 %, ImageNet 6 %, QuickDraw 10 %); networks learn well under 20 % (Rolnick et al. 2017)."""

SPREAD = 0.88
"""Doubted labels of random noise are spread over the classes like chance: 0.91 to 0.98 measured on digits and
Fashion-MNIST with 30 to 80 % random labels. On data that are only hard to read (a few pixels of the same images, heavy
pixel noise) 0.56 to 0.84. With two classes there is nothing to spread over: noise and hard data look alike."""

FLAT = 1.55
"""Agreement of the surest tenth of the predictions over that of all. Random labels are wrong everywhere alike: 0.98 to
1.48 on the same data; the hard ones mostly have 1.5 to 2.4."""

READABLE = 0.5
"""Of data that are only hard to read the surest tenth is mostly read right; where three of four labels are random, it
is at 0.39 (measured)."""

STRUCTURED = 0.2
"""Share of the inputs' variance beyond white noise: 0.4 to 0.8 for digits, clothes and diabetes, 0.00 for noise."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Labels that change, labels that are noise, or labels that nothing in sound inputs foretells."""
    return _changing(evidence) or _noisy(evidence) or _unrelated(evidence)


def _changing(evidence: Evidence) -> Suspicion | None:
    redraw = evidence.redraw
    if redraw is None or redraw.contradictions <= CONTRADICTED:
        return None
    return Suspicion(
        "labels-wrong",
        0.97,
        _where(evidence),
        f"{redraw.contradictions:.0%} of the samples get another label when they are drawn again: "
        "the label depends on the batch, not on the sample.",
        (
            Figure("samples whose label changes between two draws", redraw.contradictions, samples=redraw.samples),
            *_reached(evidence),
        ),
        (settle_labels(redraw.draws),),
        fault=True,
    )


def _noisy(evidence: Evidence) -> Suspicion | None:
    labels, references = evidence.labels, evidence.references
    if references is None or not references.informative or references.structure < STRUCTURED:
        return None  # what cannot be read off noisy inputs is no fault of the labels
    if labels is None or labels.noise - 2 * labels.error <= NOISY or labels.spread < SPREAD:
        return None
    # Noise cannot be foreseen: neither the network nor the surest predictions meet the labels much oftener than others.
    if labels.own > 1 - labels.noise / 2 or labels.sure > max(READABLE, FLAT * labels.agreement):
        return None
    return Suspicion(
        "labels-wrong",
        0.9,
        _where(evidence),
        f"About {labels.noise:.0%} of the labels do not go with their inputs: they contradict a reference model "
        "even where it is sure, and are spread over all classes as by chance.",
        (
            Figure("labels doubted by confident learning", labels.noise, error=labels.error, samples=labels.samples),
            Figure(
                "labels met by the surest tenth of cross-validated predictions",
                labels.sure,
                samples=labels.samples // 10,
            ),
            *_reached(evidence),
        ),
        (keep_believed(),),
        fault=True,
    )


def _unrelated(evidence: Evidence) -> Suspicion | None:
    references, batch = evidence.references, evidence.one_batch
    if references is None or not references.empty:
        return None
    if references.structure < STRUCTURED or (batch is not None and not batch.learnt and references.metric != "R²"):
        return None
    heart = (Figure("accuracy on one batch learnt by heart", max(batch.own_score, batch.adam_score)),) if batch else ()
    return Suspicion(
        "labels-wrong",
        0.9,
        _where(evidence),
        "The inputs have structure, but nothing in them foretells the labels: on other samples no model beats a "
        "constant prediction, although single batches can be learnt by heart. Inputs and labels are out of step.",
        (*known(references), Figure("structure of the inputs (0: white noise)", references.structure), *heart),
        (
            look(
                "align-labels",
                "make sure that input i and label i belong together: shuffle, sort and filter both by one index",
                "order = rng.permutation(len(x)); x, y = x[order], y[order]",
            ),
        ),
        fault=True,
    )


def known(references: References) -> tuple[Figure, ...]:
    """What the references and the network itself reach on held-out rows, and a constant."""
    metric, best = references.metric, references.best
    return (
        Figure(f"held-out {metric} of the best reference ({best.name})", best.held_out, error=references.error,
               samples=references.held_rows),
        Figure(f"held-out {metric} of the network itself", references.own, samples=references.held_rows),
        Figure(f"held-out {metric} of a constant prediction", references.chance, samples=references.held_rows),
    )  # fmt: skip


def _reached(evidence: Evidence) -> tuple[Figure, ...]:
    level = evidence.level
    return (Figure(f"train {level.metric}", level.train.value, samples=level.train.samples),) if level else ()


def _where(evidence: Evidence) -> str:
    site = evidence.problem.criterion.site if evidence.problem is not None else ""
    return f"the labels given to the loss at {site.rsplit('/', 1)[-1]}" if site else "the labels"


RULE = Rule(
    cause="labels-wrong",
    lesson="A network learns whatever labels it is given: with wrong ones it learns them by heart, batch by batch, and "
    "nothing that holds for other samples. The loss then falls slowly or stays near what chance predicts.",
    told_by="The same sample gets another label when drawn again; or cross-validated predictions of a reference model "
    "contradict many labels even where they are sure, spread over all classes; or inputs with structure foretell "
    "nothing of the labels although one batch can be learnt by heart.",
    cures="Keep inputs and labels in step, encode labels once for the whole data set, clean the doubted ones.",
    needs=("references",),
    judge=judge,
)
