"""batch-too-large: batches far above the critical size make too few updates of the samples they take."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.probes.noise import Noise
from unstuck.records import Figure
from unstuck.remedies.batches import smaller_batch
from unstuck.rules.rule import Rule, Suspicion
from unstuck.rules.words import line

ABOVE = 4.0
"""Present batch size over the critical one (the upper end of its interval): from there at least 1 + 4 = 5 times the
samples are needed that small batches need (McCandlish et al. 2018, equation 2.11)."""

FEW = 1000
"""Updates. After more of them it is not the number of updates that is missing: the gallery's networks learn what they
can in 100 to 1000 of a sound size."""

LEAST, MOST = 32, 256
"""Sizes to advise. Batches of 2 to 32 did best of all on CIFAR and ImageNet (Masters & Luschi 2018), so none of 32 is
too large, however little noise a training's first steps have; on usual machines larger ones are faster."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Few updates were made, and of most of them nearly all samples were wasted."""
    noise, history = evidence.noise, evidence.history
    assert noise is not None and evidence.problem is not None
    typical = noise.typical
    if not math.isfinite(typical.high) or noise.batch < ABOVE * typical.high or evidence.loop.steps > FEW:
        return None
    if history is not None and history.rose:
        return None
    size = _sound_size(noise)
    if noise.batch < ABOVE * size:
        return None
    times = 1 + noise.batch / typical.value
    return Suspicion(
        cause="batch-too-large",
        strength=0.85 if evidence.loop.steps <= FEW // 4 else 0.7,
        where=line(evidence.loop.loss_site),
        summary=f"Each of {evidence.loop.steps} updates takes {noise.batch} samples, where {typical.value:.0f} tell the"
        f" gradient as well as it needs to be: that takes about {times:.0f} times the samples.",
        evidence=(
            Figure("batch size", float(noise.batch), "samples"),
            Figure("critical batch size, median along the training", typical.value, "samples"),
            Figure("at most", typical.high, "samples"),
            Figure("updates", float(evidence.loop.steps)),
        ),
        remedies=(smaller_batch(evidence.problem, size),),
    )


def _sound_size(noise: Noise) -> int:
    """The power of two next to the critical batch size: there twice the fewest updates and samples are needed."""
    return int(2 ** round(math.log2(min(max(noise.typical.value, LEAST), MOST))))


RULE = Rule(
    cause="batch-too-large",
    lesson="Beyond the critical batch size a gradient hardly gets better by more samples, but each update costs the "
    "more of them. An epoch of one large batch is one update, however well it knows its direction.",
    told_by="The batch is at least four times the critical batch size, at most a thousand updates were made, and "
    "smaller batches learn more of as many samples.",
    cures="Batches about the critical batch size (the figure is filled in); a larger rate makes up for a part.",
    needs=("noise",),
    judge=judge,
)
