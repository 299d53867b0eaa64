"""Less of what holds the training back: dropout and noise inside the model, noise on its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from unstuck.errors import UnstuckError
from unstuck.probes.redraw import calm
from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy
from unstuck.remedies.rewrite import leave_out, rewritten
from unstuck.rewriting import CallKey, Rewrite

DROPOUTS = frozenset({"dropout", "dropout_", "alpha_dropout", "dropout1d", "dropout2d", "dropout3d",
                      "feature_dropout", "feature_alpha_dropout"})  # fmt: skip
NOISES = frozenset({"randn", "randn_like", "rand", "rand_like", "normal", "bernoulli", "empty_like"})


def drop_dropout(problem: Problem, keys: Sequence[CallKey], share: float, where: str) -> Remedy:
    """No dropout at these calls, nor inside recurrent and attention layers."""
    return Remedy(
        "drop-dropout",
        f"lower the dropout of {share:.2g} at {where}; tried here without any",
        "nn.Dropout(p=0.0), or 0.1 to 0.3, instead of " + f"nn.Dropout(p={share:.2g})",
        lambda p: _without_dropout(p, keys),
        on="train",
    )


def _without_dropout(problem: Problem, keys: Sequence[CallKey]) -> Problem:
    model = problem.twin()
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.__dict__["dropout"] = 0.0
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return rewritten(replace(problem, model=model), dict.fromkeys(keys, leave_out))


def drop_noise(keys: Sequence[CallKey], where: str) -> Remedy:
    """Zeros in the place of the random numbers that these calls draw."""
    changes: dict[CallKey, Rewrite] = dict.fromkeys(keys, silent)
    return Remedy(
        "drop-noise",
        f"turn down the noise that {where} adds; tried here without any",
        f"multiply the noise at {where} by 0.1, or leave it out",
        lambda p: rewritten(p, changes),
        on="train",
    )


def silent(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the call would give, with every entry 0."""
    return torch.zeros_like(function(*args, **kwargs))


def turn_down_input_noise(problem: Problem) -> Remedy:
    """Train on averages of several draws of each sample: noise shrinks with the root of their number.

    Judged on held-out samples: recorded noise stays as it is, and a copy can learn that by heart.
    """
    count = len(problem.redraws)
    return Remedy(
        "turn-down-input-noise",
        f"turn down the noise on the inputs; tried here on averages of {count} draws of each sample",
        f"divide the noise's standard deviation by {count**0.5:.0f} or more where the data set adds it",
        _calmed,
    )


def _calmed(problem: Problem) -> Problem:
    batches = calm(problem)
    if len(batches) < 4:
        raise UnstuckError("too few samples were drawn again to train on")
    keep = len(batches) - max(1, len(batches) // 4)
    return replace(problem, data=batches[:keep], held_out=batches[keep:], rows=None)
