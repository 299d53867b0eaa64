"""batchnorm-small-batch: batches so small that what they are normalized by is noise."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.probes.normalization import Layer
from unstuck.records import Figure
from unstuck.remedies.batches import larger_batch
from unstuck.remedies.normalization import group_norm, layer_norm
from unstuck.rules.rule import Rule, Suspicion

SMALL = 16
"""Wu & He 2018 (Group Normalization, figure 1): the error of BatchNorm rises from batches of 16 downwards."""

HARM = 1.25
"""The trained model's loss by the statistics of its own batches over that by batches of 64 of the same samples; 1.0 to
1.05 for batches of 50 (Fashion-MNIST), 2.1 for batches of 2 (digits)."""

LOST = 0.05
"""Likewise for its score: so much accuracy or R² is lost to the noise of the batch."""

STEADY = 4.0
"""Independent values to a mean, below which its noise is half a standard deviation and more (1/√n): of networks in
batches of 2 and 3 the worst layer had 2.6 to 3.8, in batches of 8 10.8 and in batches of 32 74."""

ENOUGH = 32


def judge(evidence: Evidence) -> Suspicion | None:
    """Intervention: the same samples in larger batches are predicted clearly better by the same weights. Or the noise
    is half of the signal, so that these weights may have learnt nothing else: then only the race can tell."""
    norms, problem = evidence.normalization, evidence.problem
    assert norms is not None and problem is not None
    own, large = norms.by_batch, norms.by_large
    training = [layer for layer in norms.layers if layer.trains]
    if not training or norms.batch > SMALL or own is None or large is None:
        return None
    worst = max(training, key=lambda layer: layer.noise)
    harmed = own.loss > HARM * large.loss or large.value - own.value >= LOST
    if not harmed and (worst.spread is None or worst.spread.worth >= STEADY):
        return None
    return Suspicion(
        cause="batchnorm-small-batch",
        strength=0.9 if harmed else 0.7,
        where=f"{worst.path} (BatchNorm)",
        summary=f"Batches of {norms.batch} samples are normalized by noise: the mean of {worst.path} moves by "
        f"{worst.noise:.2f} standard deviations from batch to batch.",
        evidence=(
            Figure(f"loss in batches of {norms.batch}", own.loss, samples=own.samples),
            Figure("loss of the same model in batches of 64", large.loss, samples=large.samples),
            *_movement(worst),
            Figure("values a channel is normalized over", float(worst.count)),
        ),
        remedies=(group_norm(problem), larger_batch(problem, ENOUGH), layer_norm(problem)),
    )


def _movement(layer: Layer) -> tuple[Figure, ...]:
    name, spread = "movement of the batch mean, in standard deviations", layer.spread
    if spread is None:
        return (Figure(name, layer.noise),)
    return (
        Figure(name, spread.mean, error=spread.mean_error, samples=spread.batches),
        Figure("independent values that give a mean as steady", spread.worth),
    )


RULE = Rule(
    cause="batchnorm-small-batch",
    lesson="BatchNorm subtracts the batch's mean and divides by its deviation. Over n values that mean is off by 1/√n "
    "deviations: with two samples the normalization adds noise as large as the signal.",
    told_by="The trained model predicts the same samples clearly better in batches of 64 than in batches of the size "
    "it trains with; or a layer's mean over the batch moves by half a standard deviation from batch to batch, and the "
    "training falls short.",
    cures="GroupNorm or LayerNorm, which normalize each sample by itself, or batches of 32 and more.",
    needs=("normalization",),
    judge=judge,
)
