"""Another activation in the place of one that passes no gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy
from unstuck.remedies.rewrite import instead, rewritten
from unstuck.rewriting import CallKey, Rewrite


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


def inserted(keys: Sequence[CallKey], layer: str) -> Remedy:
    """ReLU behind these calls of linear or convolutional layers."""
    change = {key: _behind(F.relu) for key in keys}
    return Remedy(
        "insert-nonlinearity",
        f"put a ReLU behind {layer}" + (f" and {len(keys) - 1} more" if len(keys) > 1 else ""),
        f"torch.relu({layer}(x))  # instead of {layer}(x)",
        lambda p: rewritten(p, change),
    )


def normalized(keys: Sequence[CallKey]) -> Remedy:
    """Layer normalization (Ba et al. 2016), without parameters of its own, in front of these activations."""
    change: dict[CallKey, Rewrite] = dict.fromkeys(keys, _in_front)
    return Remedy(
        "normalize",
        "normalize in front of each activation",
        "nn.LayerNorm(width) between each layer and its activation",
        lambda p: rewritten(p, change),
    )


def _behind(other: Callable[[Tensor], Tensor]) -> Rewrite:
    return lambda function, args, kwargs: other(function(*args, **kwargs))


def _in_front(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    first = args[0] if args else kwargs["input"]
    features = first.shape[1:] if first.dim() != 3 else first.shape[2:]
    whitened = F.layer_norm(first, features)
    return function(whitened, *args[1:], **kwargs) if args else function(**{**kwargs, "input": whitened})
