"""batchnorm-frozen: normalization layers in eval mode, with fresh statistics, in a model that trains."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unstuck.evidence import Evidence
from unstuck.probes.normalization import Layer
from unstuck.records import Figure
from unstuck.remedies.normalization import unfreeze_batchnorm
from unstuck.rules.rule import Rule, Suspicion


def judge(evidence: Evidence) -> Suspicion | None:
    """Layers that never normalized anything: in eval mode, their statistics 0 and 1 from the first step to the last."""
    norms, problem = evidence.normalization, evidence.problem
    assert norms is not None and problem is not None
    # A model that is in eval mode as a whole is another cause.
    if evidence.loop.eval_share > 0.5:
        return None
    frozen = [n for n in norms.layers if not n.trains and n.tracks and n.fresh_start and n.fresh_end]
    if not frozen:
        return None
    level = evidence.level
    return Suspicion(
        cause="batchnorm-frozen",
        strength=0.95,
        where=f"{frozen[0].path} (BatchNorm)" + (f" and {len(frozen) - 1} more" if len(frozen) > 1 else ""),
        summary=f"{len(frozen)} of {len(norms.layers)} normalization layers stay in eval mode while the model trains, "
        "with the mean 0 and variance 1 they were made with: they normalize nothing.",
        evidence=(
            Figure("layers in eval mode with fresh statistics", float(len(frozen)), samples=len(norms.layers)),
            *_unfitting(frozen),
            *((Figure(f"train {level.metric}", level.train.value, samples=level.train.samples),) if level else ()),
        ),
        remedies=(unfreeze_batchnorm(problem, tuple(n.path for n in frozen)),),
        fault=True,
    )


def _unfitting(frozen: Sequence[Layer]) -> tuple[Figure, ...]:
    """Of the layer whose variance is furthest from what arrives, what that is."""
    known = [n.distance for n in frozen if n.distance is not None and n.distance.variance > 0]
    if not known:
        return ()
    worst = max(known, key=lambda off: abs(math.log(off.variance)))
    return (Figure("running variance / variance of what arrives", worst.variance, error=worst.variance_error),)


RULE = Rule(
    cause="batchnorm-frozen",
    lesson="A BatchNorm layer in eval mode divides by its running statistics. Those of a pretrained network fit its "
    "data; those of a new layer are 0 and 1, and the layer does nothing.",
    told_by="Layers are in eval mode in most training steps, and their statistics are fresh at start and end.",
    cures="Leave the layers in train mode; freeze them only once their statistics fit.",
    needs=("normalization",),
    judge=judge,
)
