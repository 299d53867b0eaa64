"""precision-loss: half precision rounds gradients to 0, or steps to nothing."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.problem import Problem
from unstuck.records import Figure
from unstuck.remedies.numbers import scale_loss, use_float32
from unstuck.rules.rule import Rule, Suspicion

FLUSHED = 0.3
"""Share of the gradient that half precision rounds to 0. With a scale that fits it is below 0.01 (measured on a
transformer under fp16 autocast); Micikevicius et al. 2018 lost SSD at 0.31 more zeros."""

STALLED = 0.6
"""Share of parameters that a step at the full rate does not move, though their gradient is not 0."""


STEPPED = 0.5
"""A scaler that begins too high halves its scale a dozen times, and then steps every time."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Intervention: the same gradient in float32 has entries where half precision has none, or the step is lost."""
    numbers, problem = evidence.numbers, evidence.problem
    assert numbers is not None
    if problem is None or not numbers.dtype or numbers.broken:
        return None
    wanted = evidence.loop.backwards / evidence.loop.accumulate
    if numbers.overflown and evidence.loop.steps < STEPPED * wanted:
        return _backing_off(evidence, problem, wanted)
    flushed, stalled = numbers.flushed >= FLUSHED, numbers.stalled >= STALLED
    if not flushed and not stalled:
        return None
    rounded = f"{numbers.flushed:.0%} of the gradient is rounded to 0 in {numbers.dtype}: what is left does not train."
    lost = f"{numbers.stalled:.0%} of the weights do not move: a step of this size is rounded away in {numbers.dtype}."
    scaled = [scale_loss(problem)] if flushed and numbers.halved == 0 else []
    return Suspicion(
        cause="precision-loss",
        strength=0.95,
        where=f"parameters in {numbers.dtype}" if numbers.halved else f"gradients in {numbers.dtype}",
        summary=rounded if flushed else lost,
        evidence=(
            Figure("gradient entries rounded to 0", numbers.flushed),
            Figure("entries a step leaves as they were", numbers.stalled),
            Figure("parameters in half precision", numbers.halved),
            Figure("scale of the loss", problem.loop.loss_scale),
        ),
        remedies=(*scaled, use_float32(problem)),
        fault=True,
    )


def _backing_off(evidence: Evidence, problem: Problem, wanted: float) -> Suspicion:
    loop, numbers = evidence.loop, evidence.numbers
    assert numbers is not None
    return Suspicion(
        cause="precision-loss",
        strength=0.97,
        where=f"gradients in {numbers.dtype}",
        summary=f"The loss is multiplied by {loop.loss_scale:.2g}, and its gradients overflow: the scaler backs off, "
        f"and of {wanted:.0f} steps it has taken {loop.steps}.",
        evidence=(
            Figure("scale of the loss", loop.loss_scale),
            Figure("backward passes", float(loop.backwards)),
            Figure("steps that the scaler let through", float(loop.steps)),
        ),
        remedies=(scale_loss(problem), use_float32(problem)),
        fault=True,
    )


RULE = Rule(
    cause="precision-loss",
    lesson="float16 holds nothing below 6e-8, and bfloat16 has eight bits: small gradients become 0 in the one, and a "
    "step below 1/256 of its weight is rounded away in the other.",
    told_by="The gradient is computed again in float32 and compared; a step is taken and the weights that did not move "
    "are counted.",
    cures="Parameters in float32 (autocast for speed); a gradient scaler at its default scale for float16.",
    needs=("numbers",),
    judge=judge,
)
