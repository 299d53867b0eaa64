"""clipping-before-unscale: under mixed precision the scaled gradients are clipped."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.clipping import unscale_first
from unstuck.rules.rule import Rule, Suspicion


def judge(evidence: Evidence) -> Suspicion | None:
    """A clip call met gradients that a scaler had multiplied and not yet divided."""
    loop, problem = evidence.loop, evidence.problem
    if not loop.clip_before_unscale or loop.clip is None:
        return None
    bound = loop.clip.bound
    return Suspicion(
        cause="clipping-before-unscale",
        strength=0.98,
        where=loop.clip.call,
        summary=f"Gradients are clipped at {bound:g} while they are still multiplied by the loss scale of "
        f"{loop.loss_scale:g}: what is left of them after unscaling is next to nothing.",
        evidence=(
            Figure("loss scale", loop.loss_scale),
            Figure("median of bound / norm of the scaled gradient", loop.clip_factor, samples=loop.steps),
            Figure("bound on the true gradient", bound / max(loop.loss_scale, 1e-30)),
        ),
        remedies=(unscale_first(problem),) if problem is not None else (),
        fault=True,
    )


RULE = Rule(
    cause="clipping-before-unscale",
    lesson="A GradScaler multiplies the loss by a large factor so that half-precision gradients do not underflow, and "
    "divides before the step. Clipping in between holds the scaled norm at the bound: the step is the scale too small.",
    told_by="clip_grad_norm_ was called between scaler.scale(loss).backward() and scaler.step, without unscale_.",
    cures="scaler.unscale_(optimizer) before clipping.",
    needs=(),
    judge=judge,
)
