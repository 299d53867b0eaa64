"""batch-too-small: the noise of small batches, and nothing else, keeps the loss where it is."""

from __future__ import annotations

import math
from statistics import fmean, stdev

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.batches import larger_batch
from unstuck.rules import batchnorm_small_batch
from unstuck.rules.rule import Rule, Suspicion, any_of
from unstuck.rules.words import line

BELOW = 4.0
"""Critical batch size (the lower end of its interval) over the present one: at 4 the noise of a gradient is twice the
gradient itself."""

GONE = 0.1
"""What larger batches must take away in the same number of updates at the same rate, as a share of what the training
took away so far. Whether it is worth it the race decides."""

ENOUGH = 32
"""Batches of 2 to 32 did best of all on CIFAR and ImageNet (Masters & Luschi 2018)."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Intervention: the loss stands, and on larger batches alone, all else as it is, comes down."""
    noise, found, history = evidence.noise, evidence.averaging, evidence.history
    level = evidence.level
    assert noise is not None and found is not None and history is not None and level is not None
    assert evidence.problem is not None
    scale = noise.points[-1].scale
    here, there = fmean(found.present), fmean(found.averaged)
    gone = (here - there) / max(level.initial.loss - here, here, 1e-12)
    if not history.stands or scale.low < BELOW * noise.batch or not found.sure or gone < GONE:
        return None
    if any_of(evidence, (batchnorm_small_batch,)):
        return None  # the statistics of a small batch, not the mean of its gradients, are what is noisy
    size = min(max(ENOUGH, 2 * found.batch), found.larger)
    return Suspicion(
        cause="batch-too-small",
        strength=0.9 if there < here / 2 else 0.7,
        where=line(evidence.loop.loss_site),
        summary=f"The loss stands at {here:.3g} on batches of {found.batch}, whose gradients are mostly noise; on "
        f"batches of {found.larger}, at the same rate, it goes to {there:.3g} in {found.updates} updates.",
        evidence=(
            Figure(
                f"loss in {found.updates} more updates on batches of {found.batch}", here,
                error=_error(found.present), samples=len(found.present),
            ),
            Figure(
                f"the same on batches of {found.larger}", there,
                error=_error(found.averaged), samples=len(found.averaged),
            ),
            Figure("critical batch size where the training stands, at least", scale.low, "samples"),
            Figure("share of a gradient's length that is noise", _noisy(noise.batch, scale.low)),
        ),
        remedies=(larger_batch(evidence.problem, size),),
    )  # fmt: skip


def _error(losses: tuple[float, ...]) -> float:
    return stdev(losses) / math.sqrt(len(losses))


def _noisy(batch: int, critical: float) -> float:
    """√(noise / (noise + signal)) of one gradient."""
    return math.sqrt(critical / (batch + critical))


RULE = Rule(
    cause="batch-too-small",
    lesson="The gradient of a batch is the data's gradient and noise that falls as 1/√batch size. Once the noise is "
    "the larger part, steps of a fixed length walk about at a height that the noise decides, and the loss stands.",
    told_by="The loss stands; the batch is far below the critical batch size; and from there the same rate on larger "
    "batches takes a tenth or more of what was learnt so far off the loss.",
    cures="Larger batches (or gradients added up over several); a smaller rate, or one that decays, does the same.",
    needs=("noise", "averaging", "history", "level"),
    judge=judge,
)
