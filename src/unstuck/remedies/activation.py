"""Another activation in the place of one that passes no gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F

from unstuck.problem import CallKey, Problem
from unstuck.remedies.remedy import Remedy
from unstuck.remedies.rewrite import instead, rewritten


def leaky(problem: Problem, keys: Sequence[CallKey]) -> Remedy:
    """LeakyReLU (slope 0.01) in the place of these ReLU calls."""
    change = {key: instead(lambda x: F.leaky_relu(x, 0.01)) for key in keys}
    return Remedy(
        "leaky-activation",
        "use a leaky activation, which keeps a gradient where ReLU has none",
        "nn.LeakyReLU(0.01) instead of nn.ReLU()",
        lambda p: rewritten(p, change),
    )


def rectified(problem: Problem, keys: Sequence[CallKey]) -> Remedy:
    """ReLU in the place of these sigmoid or tanh calls."""
    change = {key: instead(F.relu) for key in keys}
    return Remedy(
        "rectified-activation",
        "use ReLU, whose derivative does not vanish for large inputs",
        "nn.ReLU() instead of the squashing activation",
        lambda p: rewritten(p, change),
    )
