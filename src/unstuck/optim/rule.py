"""What an update rule is: two pure functions on parameters stacked over lanes.

    state = rule.init(parameter, hyper, flags)
    parameter, state = rule.update(parameter, gradient, state, hyper, flags, step)

parameter, gradient   [lanes, …]; a lane is one training
hyper                 numbers by name, each [lanes] in float64 (`numbers` makes them): every lane has its own. One that
                      all lanes share may be a float: what is computed from it costs no operation of torch's
flags                 options that are on or off for all lanes: "maximize", "amsgrad", "centered", "nesterov"
state                 tensors by name, [lanes, …] each; which there are `init` decides
step                  1 at the first update

Nothing is changed in place, nothing is shared between lanes: a lane that turns NaN leaves the others clean. Each rule
equals its `torch.optim` counterpart to round-off, in all of its documented options (a contract test).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from unstuck.errors import BadArgument

Number = Tensor | float
Hyper = Mapping[str, Number]
State = dict[str, Tensor]
Flags = frozenset[str]
NONE: Flags = frozenset()

Init = Callable[[Tensor, Hyper, Flags], State]
Update = Callable[[Tensor, Tensor, State, Hyper, Flags, int], tuple[Tensor, State]]


@dataclass(frozen=True)
class Rule:
    """An update rule. `numbers`: hyperparameters with their defaults in torch (`lr` too); `flags`: what may be switched
    on; `counterpart`: the class in `torch.optim` it equals, with the `options` that make it this rule."""

    name: str
    init: Init
    update: Update
    numbers: Mapping[str, float]
    flags: Flags
    counterpart: type[torch.optim.Optimizer]
    options: Mapping[str, object]


@overload
def along(values: Tensor, parameter: Tensor) -> Tensor: ...
@overload
def along(values: Number, parameter: Tensor) -> Number: ...
def along(values: Number, parameter: Tensor) -> Number:
    """Numbers [lanes] in the shape and dtype that multiply `parameter` [lanes, …]; a float as it is.

    What is computed from hyperparameters is computed in float64 and rounded here: 1 − β₂ in float32 is 1e-5 off.

    >>> along(torch.tensor([0.1, 0.2]), torch.zeros(2, 3, 4)).shape
    torch.Size([2, 1, 1])
    """
    if not isinstance(values, Tensor):
        return values
    return values.to(parameter.device, parameter.dtype).reshape(-1, *(1 for _ in parameter.shape[1:]))


def rate(hyper: Hyper, parameter: Tensor, factor: Number = 1.0) -> Tensor:
    """Learning rates times a factor, as `along` gives them, and always a tensor."""
    return along(torch.as_tensor(hyper["lr"], dtype=torch.float64) * factor, parameter)


def some(values: Number) -> bool:
    """True if the number is not zero in every lane."""
    return bool(values.any()) if isinstance(values, Tensor) else values != 0


def numbers(rule: Rule, lanes: int, **given: float | Sequence[float]) -> dict[str, Tensor]:
    """The rule's hyperparameters [lanes], float64: those `given` (for all lanes, or one for each), else its defaults.

    Raises BadArgument for a name the rule does not know, or another number of values than lanes.

    >>> from unstuck.optim.sgd import SGD
    >>> numbers(SGD, 2, lr=[0.1, 0.2])["lr"]
    tensor([0.1000, 0.2000], dtype=torch.float64)
    """
    for name, value in given.items():
        if name not in rule.numbers:
            raise BadArgument(f"numbers: {rule.name} has no `{name}`; it has {', '.join(rule.numbers)}")
        if not isinstance(value, (int, float)) and len(value) != lanes:
            raise BadArgument(f"numbers: `{name}` must have a value for each of the {lanes} lanes, got {len(value)}")
    chosen = {**rule.numbers, **given}
    return {name: torch.as_tensor(value, dtype=torch.float64).expand(lanes) for name, value in chosen.items()}


def descent(parameter: Tensor, gradient: Tensor, hyper: Hyper, flags: Flags) -> Tensor:
    """g + λw [lanes, …]: the gradient (its negative under "maximize") with the L2 penalty's, as torch takes it."""
    if "maximize" in flags:
        gradient = -gradient
    decay = hyper["weight_decay"]
    return gradient + along(decay, parameter) * parameter if some(decay) else gradient
