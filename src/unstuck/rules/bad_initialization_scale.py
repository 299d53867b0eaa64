"""bad-initialization-scale: weights so small or so large that signals shrink or grow by orders of magnitude."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.probes.gradients import Signal
from unstuck.probes.layers import Layer
from unstuck.records import Figure
from unstuck.remedies.initialization import reinitialize
from unstuck.rules import symmetric_initialization
from unstuck.rules.rule import Rule, Suspicion

SMALL, LARGE = 0.3, 3.0
"""rms(weights)·√fan_in outside of which a layer's scale is off: the usual rules give 0.58 (PyTorch) to 1.41 (He)."""

SHRUNK = 1e-2
"""Last over first activation of the layers; PyTorch's own start leaves 0.05 behind six ReLU layers (measured)."""

FAR = 3.0
"""First loss over the loss of a constant prediction: sound classifiers start within 1.5 of it (measured: at most 1.5 on
the healthy gallery), a He-initialized last layer within 2."""


EMBEDDINGS = frozenset({"Embedding", "EmbeddingBag"})


def judge(evidence: Evidence) -> Suspicion | None:
    """Layers with weights off scale, and what follows: signals that shrink or grow, or a first loss far off."""
    gradients, problem = evidence.gradients, evidence.problem
    assert gradients is not None and problem is not None
    off = [layer for layer in gradients.first.layers if _off(layer)]
    if not off or symmetric_initialization.judge(evidence) or _squashed(evidence):
        return None
    through, loss = _through(gradients.first.signals), _first_loss(evidence)
    small = sum(layer.gain < SMALL for layer in off) * 2 > len(gradients.first.layers)
    large = any(_large(layer) for layer in off)
    if not ((small and through < SHRUNK) or (large and (loss > FAR or through > 1 / SHRUNK))):
        return None
    blamed = [layer for layer in off if _large(layer)] if large and not small else off
    worst = max(blamed, key=lambda layer: abs(math.log(max(layer.gain, 1e-9))))
    return Suspicion(
        cause="bad-initialization-scale",
        strength=0.95 if through < SHRUNK or loss > FAR * FAR else 0.85,
        where=worst.where,
        summary=f"{worst.where} starts with weights of size {worst.weight:.2g}: "
        + (f"signals shrink to {through:.1g} of themselves through the layers." if through < SHRUNK else "")
        + (f"the first loss is {loss:.3g} times what a constant prediction gets." if through >= SHRUNK else ""),
        evidence=(
            Figure(f"rms(weights)·√fan_in of {worst.where} (sound: 0.6 to 1.4)", worst.gain, samples=worst.units),
            Figure("output of the last layer / output of the first", through, samples=len(gradients.first.signals)),
            Figure("first loss / loss of a constant prediction", loss),
        ),
        remedies=(reinitialize(problem),),
    )


def _off(layer: Layer) -> bool:
    """A zero layer is no matter of scale; a small embedding is usual (0.02 in GPT-2)."""
    return _large(layer) or (layer.kind not in EMBEDDINGS and 0 < layer.gain < SMALL)


def _large(layer: Layer) -> bool:
    """An embedding has no fan-in: PyTorch draws its entries from N(0, 1), which is the upper end of what is usual."""
    return layer.gain > (LARGE / 2 if layer.kind in EMBEDDINGS else LARGE)


def _through(signals: tuple[Signal, ...]) -> float:
    if len(signals) < 2 or signals[0].output <= 0 or not math.isfinite(signals[-1].output):
        return float("nan")
    return signals[-1].output / signals[0].output


def _first_loss(evidence: Evidence) -> float:
    level, problem = evidence.level, evidence.problem
    if level is None or problem is None or not math.isfinite(level.chance_loss) or level.chance_loss <= 0:
        return float("nan")
    return level.initial.loss / level.chance_loss if problem.criterion.task != "regression" else float("nan")


def _squashed(evidence: Evidence) -> bool:
    """Large weights before sigmoid or tanh have a name of their own: saturated-activations."""
    activations = evidence.activations
    return activations is not None and any(a.saturated > 0.5 for a in activations.initial)


RULE = Rule(
    cause="bad-initialization-scale",
    lesson="Each layer multiplies the variance of its input by fan_in·Var(w). Below 1 the signal dies out with depth, "
    "and the gradient with it; above 1 it grows, and the first outputs are huge and wrong.",
    told_by="Weights are off the usual scale, and activations shrink a hundredfold through the layers, or the first "
    "loss is far above that of a constant prediction.",
    cures="He's rule before ReLU, Glorot's before tanh; N(0, 0.02²) for embeddings that the output layer shares.",
    needs=("gradients",),
    judge=judge,
)
