"""batchnorm-train-eval-gap: running statistics that do not fit the data, so that evaluation fails where training does
not."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.probes.normalization import Layer, Normalization
from unstuck.probes.statistics import LEFT, fitting_momentum
from unstuck.problem import Problem
from unstuck.records import Figure
from unstuck.remedies.batches import shuffle
from unstuck.remedies.learning_rate import change_learning_rate
from unstuck.remedies.normalization import evaluate_elsewhere, exact_statistics, group_norm, other_momentum
from unstuck.rules.rule import Rule, Suspicion

GAP = 0.1
"""Loss of score from batch statistics to running ones, on the same samples; sound trainings show 0.00 to 0.02."""

CLOSED = 0.5
"""Share of the gap that recomputed statistics must close: else it is not that the running ones lag."""

FEW, STRAY = 5, 0.02
"""Forward passes beyond the steps', and as a share of these, that a sound script may make (a look at the model)."""

SLOW, FAST = 0.01, 0.5
"""Momenta outside of this follow the data over more than 100 batches, or forget all but the last two."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Intervention: recomputing the running statistics from the data gives back most of what evaluation loses; or it
    cannot, as the batches have no statistics in common."""
    norms, problem = evidence.normalization, evidence.problem
    assert norms is not None and problem is not None
    training = [layer for layer in norms.layers if layer.trains and layer.tracks]
    if not training or norms.by_batch is None or norms.by_running is None or norms.recalibrated is None:
        return None
    batch, running, again = (max(s.value, -1.0) for s in (norms.by_batch, norms.by_running, norms.recalibrated))
    if batch - running < GAP:
        return None
    if again - running < CLOSED * (batch - running):
        return _unlike(norms, training[0].path, problem) if batch - again >= GAP else None
    odd = [layer for layer in training if misset(layer)]
    layer = (odd or training)[0]
    if not odd and norms.strays > max(FEW, STRAY * evidence.loop.backwards):
        return _strayed(norms, layer.path, problem)
    lr = problem.optimizer.lr if problem.optimizer is not None else 0.0
    slower = (change_learning_rate(problem, lr / 10),) if lr > 0 else ()
    # What lags is mended at its root where that is known, rather than at the end.
    remedies = (other_momentum(fitting_momentum(layer.updates)),) if odd else (*slower, exact_statistics(problem))
    return Suspicion(
        cause="batchnorm-train-eval-gap",
        strength=0.95 if odd else 0.6,
        where=f"{layer.path} (BatchNorm)",
        summary=f"On the same samples {norms.by_batch.metric} is {batch:.2f} by batch statistics and {running:.2f} in "
        "evaluation mode: the running statistics do not fit the data"
        + (f" ({_said(layer)})." if odd else "."),
        evidence=_figures(norms, layer),
        remedies=remedies,
        fault=bool(odd),
    )


def misset(layer: Layer) -> bool:
    """True if a layer's momentum is outside of what follows the data, or too small for the batches that there were."""
    slow_or_fast = layer.momentum is not None and not SLOW <= layer.momentum <= FAST
    return slow_or_fast or (layer.updates > 0 and layer.left > LEFT)


def _said(layer: Layer) -> str:
    left = f", which after {layer.updates} batches keeps {layer.left:.0%} of their start" if layer.left > LEFT else ""
    return f"momentum {layer.momentum:g}{left}"


def _unlike(norms: Normalization, path: str, problem: Problem) -> Suspicion:
    """No one mean and variance serves: each batch has its own, as where every batch comes from one source."""
    return Suspicion(
        cause="batchnorm-train-eval-gap",
        strength=0.9,
        where=f"{path} (BatchNorm)",
        summary=f"{_apart(norms)}, and statistics recomputed from the data do not mend it: the "
        "batches are so unlike each other that no one set of statistics fits them all.",
        evidence=_figures(norms),
        remedies=(group_norm(problem), shuffle()),
        fault=True,
    )


def _strayed(norms: Normalization, path: str, problem: Problem) -> Suspicion:
    return Suspicion(
        cause="batchnorm-train-eval-gap",
        strength=0.95,
        where=f"{path} (BatchNorm)",
        summary=f"{_apart(norms)}: {norms.strays} forward passes in training mode that belong "
        "to no step have moved the running statistics away from the data.",
        evidence=(Figure("forward passes in training mode beyond the steps'", norms.strays), *_figures(norms)),
        remedies=(evaluate_elsewhere(problem),),
        fault=True,
    )


def _apart(norms: Normalization) -> str:
    assert norms.by_batch is not None and norms.by_running is not None
    return (
        f"On the same samples {norms.by_batch.metric} is {norms.by_batch.value:.2f} by batch statistics and "
        f"{norms.by_running.value:.2f} in evaluation mode"
    )


def _figures(norms: Normalization, layer: Layer | None = None) -> tuple[Figure, ...]:
    assert norms.by_batch is not None and norms.by_running is not None and norms.recalibrated is not None
    metric, samples = norms.by_batch.metric, norms.by_batch.samples
    return (
        Figure(f"{metric} by batch statistics", norms.by_batch.value, samples=samples),
        Figure(f"{metric} in evaluation mode", norms.by_running.value, samples=samples),
        Figure(f"{metric} in evaluation mode, statistics recomputed", norms.recalibrated.value, samples=samples),
        *((Figure(f"change of the {metric} in evaluation mode", norms.gap.score, error=norms.gap.score_error),)
          if norms.gap is not None else ()),
        *(_layers(norms, layer) if layer is not None else ()),
    )  # fmt: skip


def _layers(norms: Normalization, layer: Layer) -> tuple[Figure, ...]:
    figures = [Figure("momentum of the running statistics", layer.momentum)]
    if layer.updates:
        figures.append(Figure(f"share of their start that is left after {layer.updates} batches", layer.left))
    if layer.distance is not None:
        off = layer.distance
        figures += [
            Figure("running mean off the batches', in standard deviations", off.mean, error=off.mean_error),
            Figure("running variance / the batches'", off.variance, error=off.variance_error),
        ]
    if norms.ragged:
        figures.append(Figure("samples in the smallest batch, which moves them as much as any", float(norms.ragged)))
    return tuple(figures)


RULE = Rule(
    cause="batchnorm-train-eval-gap",
    lesson="In training BatchNorm goes by the batch, in evaluation by running means that follow the batches with its "
    "momentum. Where these lag behind the weights, the evaluated network is another one than the trained.",
    told_by="On the same samples evaluation mode scores far below batch statistics, and statistics recomputed from the "
    "data close the gap; or no statistics do, as each batch has its own.",
    cures="PyTorch's momentum of 0.1 (in other libraries 0.9 means the same), larger where there are few batches; or "
    "statistics recomputed after training (`torch.optim.swa_utils.update_bn`).",
    needs=("normalization",),
    judge=judge,
)
