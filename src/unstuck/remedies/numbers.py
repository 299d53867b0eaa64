"""Numbers kept in range: an epsilon at the call that leaves it, float32 for half precision, a larger loss scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unstuck.probes.numbers import Origin, in_float32
from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy
from unstuck.remedies.rewrite import rewritten
from unstuck.rewriting import Rewrite

SMALL = 1e-6
HIGHEST = 80.0
"""exp(80) = 5.5e34: a sum of a thousand such terms is still finite in float32 (3.4e38)."""
SCALE = 65536.0
CALLS = 100
"""So many calls of a logarithm in one step are guarded."""


@dataclass(frozen=True)
class Guard:
    """How a singular call is kept from its singularity: a rewrite, in words, and as code."""

    rewrite: Rewrite
    text: str
    code: str


def _inside(change: Callable[[Tensor], Tensor]) -> Rewrite:
    """The call on its first argument, changed."""

    def rewrite(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(change(args[0]), *args[1:], **kwargs) if args else function(input=change(kwargs["input"]))

    return rewrite


def _divisor(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    divisor = args[1]
    if not isinstance(divisor, Tensor):
        return function(*args, **kwargs)
    return function(args[0], torch.where(divisor < 0, divisor - SMALL, divisor + SMALL), *args[2:], **kwargs)


_LOG = Guard(
    _inside(lambda x: x.clamp_min(SMALL)), "keep the logarithm's argument above 0", "torch.log(x.clamp_min(1e-6))"
)
_ROOT = Guard(_inside(lambda x: x.clamp_min(0) + SMALL), "add an epsilon under the root", "torch.sqrt(x + 1e-6)")
_DIVIDE = Guard(_divisor, "add an epsilon to the divisor", "a / (b + 1e-6)")
_EXP = Guard(
    _inside(lambda x: x.clamp_max(HIGHEST)),
    "keep the exponential's argument below its overflow",
    "torch.exp(x.clamp(max=80))",
)
_SOFTMAX = Guard(
    _inside(lambda x: (x - x.amax(-1, keepdim=True)).clamp_min(-HIGHEST)),
    "subtract the row's maximum before the exponential",
    "torch.exp(x - x.amax(-1, keepdim=True))  # or F.log_softmax / F.cross_entropy, which do so",
)
_ANGLE = Guard(
    _inside(lambda x: x.clamp(-1 + SMALL, 1 - SMALL)),
    "keep the argument inside (−1, 1)",
    "x.clamp(-1 + 1e-6, 1 - 1e-6)",
)

GUARDS: dict[str, Guard] = {
    **dict.fromkeys(("log", "log2", "log10", "log_", "xlogy"), _LOG),
    **dict.fromkeys(("sqrt", "sqrt_", "rsqrt", "pow", "__pow__", "reciprocal"), _ROOT),
    **dict.fromkeys(("div", "true_divide", "__truediv__", "div_"), _DIVIDE),
    **dict.fromkeys(("exp", "exp_", "expm1", "sinh", "cosh"), _EXP),
    **dict.fromkeys(("acos", "asin", "atanh", "logit"), _ANGLE),
}
"""Calls with a singularity, and how each is kept away from it."""


def guard(origin: Origin) -> Remedy | None:
    """An epsilon at the call that made the first value that was not finite; None where it is none of `GUARDS`.

    Logarithms are guarded all at once: of `y·log p + (1 − y)·log(1 − p)` one breaks first, the other soon after. Other
    guards change ordinary values too, and stay with the one call.
    """
    known = GUARDS.get(origin.key[0])
    if known is _EXP and origin.summed:
        known = _SOFTMAX
    if known is None:
        return None
    keys = [(origin.key[0], i) for i in range(CALLS)] if known is _LOG else [origin.key]
    return Remedy(
        "add-epsilon",
        f"{known.text} at {origin.where}",
        known.code,
        lambda p: rewritten(p, dict.fromkeys(keys, known.rewrite)),
    )


def use_float32(problem: Problem) -> Remedy:
    """Parameters, inputs and loss in float32."""
    return Remedy(
        "float32",
        "train in float32 (autocast keeps the parameters there)",
        f"{problem.model_name}.float()  # and with torch.autocast(...) around the forward pass, if speed is wanted",
        lambda p: in_float32(replace(p, loop=replace(p.loop, stepping=True))),
    )


def scale_loss(problem: Problem) -> Remedy:
    """The loss is scaled by 65536 before backward, gradients unscaled before the step (Micikevicius et al. 2018)."""
    return Remedy(
        "scale-loss",
        f"scale the loss by {SCALE:g} before backward (now {problem.loop.loss_scale:.3g})",
        "scaler = torch.amp.GradScaler()  # its default init_scale of 65536",
        lambda p: replace(p, loop=replace(p.loop, loss_scale=SCALE, stepping=True)),
    )
