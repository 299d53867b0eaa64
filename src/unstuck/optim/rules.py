"""All update rules, and the one that equals a given torch optimizer.

    rule, flags, hyper = counterpart(torch.optim.Adam, {"lr": 1e-3, "betas": (0.9, 0.99), "amsgrad": True})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from unstuck.optim.adagrad import ADAGRAD
from unstuck.optim.adam import ADAM
from unstuck.optim.adamw import ADAMW
from unstuck.optim.momentum import MOMENTUM
from unstuck.optim.nesterov import NESTEROV
from unstuck.optim.rmsprop import RMSPROP
from unstuck.optim.rule import Flags, Rule
from unstuck.optim.sgd import SGD

RULES = (SGD, MOMENTUM, NESTEROV, ADAGRAD, RMSPROP, ADAM, ADAMW)

BESIDE = {"params", "param_names", "initial_lr", "foreach", "differentiable", "fused", "capturable", "betas",
          "nesterov", "decoupled_weight_decay"}  # fmt: skip
"""Options of torch that change how an update is computed, not what it is, or that are dealt with by name."""


def counterpart(
    cls: type[torch.optim.Optimizer], options: Mapping[str, Any]
) -> tuple[Rule, Flags, dict[str, float]] | None:
    """The rule that updates as `cls` with these `options` does, its flags, and its numbers; None where there is none.

    Numbers left out have torch's defaults. A learning rate that is a tensor counts as its value.
    """
    rule = _rule(cls, options)
    if rule is None:
        return None
    betas = dict(zip(("beta1", "beta2"), options.get("betas", ()), strict=False))
    given = {name: value for name, value in {**options, **betas}.items() if name not in BESIDE}
    flags = frozenset(name for name, value in given.items() if isinstance(value, bool) and value)
    numbers = {name: float(value) for name, value in given.items() if not isinstance(value, bool) and value is not None}
    unknown = (flags - rule.flags) | (set(numbers) - set(rule.numbers))
    if any(name in flags or numbers.get(name) for name in unknown):
        return None
    return rule, flags & rule.flags, {name: numbers.get(name, default) for name, default in rule.numbers.items()}


def _rule(cls: type[torch.optim.Optimizer], options: Mapping[str, Any]) -> Rule | None:
    if cls is torch.optim.SGD:
        return NESTEROV if options.get("nesterov") else MOMENTUM if options.get("momentum") else SGD
    if cls is torch.optim.Adam and options.get("decoupled_weight_decay"):
        return ADAMW
    return next((rule for rule in RULES if rule.counterpart is cls and cls is not torch.optim.SGD), None)
