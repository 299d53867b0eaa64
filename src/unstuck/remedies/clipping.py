"""Gradient clipping: added, taken away, or applied to gradients that were unscaled first."""

from __future__ import annotations

from dataclasses import replace

from unstuck.loop import Clip
from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy


def add_clipping(problem: Problem, bound: float = 1.0) -> Remedy:
    """Clip the gradient's norm before each step (Pascanu, Mikolov & Bengio 2013)."""
    return Remedy(
        "add-clipping",
        f"clip the gradient's norm at {bound:g} before each step",
        f"torch.nn.utils.clip_grad_norm_({problem.model_name}.parameters(), {bound:g})  # before optimizer.step()",
        lambda p: replace(p, loop=replace(p.loop, clip=Clip("norm", bound), clip_before_unscale=False)),
    )


def loosen_clipping(problem: Problem, bound: float) -> Remedy:
    """A bound that only steps far above the usual ones meet."""
    looser = Clip("norm", bound) if problem.loop.clip is None else problem.loop.clip._replace(bound=bound)
    return Remedy(
        "loosen-clipping",
        f"raise the clipping bound to {bound:.2g}",
        f"torch.nn.utils.{looser.call}".replace("…", f"{problem.model_name}.parameters()"),
        lambda p: replace(p, loop=replace(p.loop, clip=looser, clip_before_unscale=False)),
    )


def unscale_first(problem: Problem) -> Remedy:
    """The same bound, on gradients that the scaler has divided by its scale."""
    return Remedy(
        "unscale-before-clipping",
        "unscale the gradients before they are clipped",
        "scaler.unscale_(optimizer)  # before clip_grad_norm_",
        lambda p: replace(p, loop=replace(p.loop, clip_before_unscale=False)),
    )
