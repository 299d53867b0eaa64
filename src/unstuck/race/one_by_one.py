"""How the lanes of a stack are moved one by one: by torch's own optimizers, or straight by the kernels beneath them.

That is faster than all at once where a lane is large, because a fused kernel passes through memory once; and it serves
optimizers that we have no rule for. An optimizer's `step` takes 10 to 20 µs in Python before it comes to its kernel, as
long as that works on 50 000 parameters: so where the optimizer is one of torch's own with such a kernel, we call it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unstuck.training import Training

Move = Callable[[list[Tensor], float], None]
"""(gradients, learning rate): moves the parameters it was made for."""

ALWAYS = 1e9
"""A step count at which Adam no longer corrects for its start at zero."""


class OneByOne:
    """Each lane by itself."""

    def __init__(self, runs: Sequence[Training], names: Sequence[str], shapes: Sequence[torch.Size]) -> None:
        self.runs, self.names = list(runs), list(names)
        self._moves = [_each_group(run, names) for run in self.runs]

    def step(self, flat: Tensor, gradients: Sequence[Tensor], out: Sequence[int], step: int) -> None:
        """In place: the lanes' models hold the rows. Kernels want a gradient laid out as its parameter is."""
        rows = zip(*(gradient.contiguous().unbind() for gradient in gradients), strict=True)
        for lane, (move, row) in enumerate(zip(self._moves, rows, strict=True)):
            if lane not in out:
                move(row)

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone."""
        self.runs = [self.runs[lane] for lane in lanes]
        self._moves = [self._moves[lane] for lane in lanes]


def _each_group(run: Training, names: Sequence[str]) -> Callable[[Sequence[Tensor]], None]:
    """What moves a lane along its gradients: a kernel for each group of its optimizer, or the optimizer."""
    assert run.optimizer is not None
    own = dict(run.model.named_parameters())
    place = {id(own[name]): k for k, name in enumerate(names)}
    groups = [[place[id(p)] for p in group["params"] if id(p) in place] for group in run.optimizer.param_groups]
    parameters: list[Tensor] = [own[name] for name in names]
    moves = [
        kernel(type(run.optimizer), group, [parameters[k] for k in inside]) if inside else _still
        for group, inside in zip(run.optimizer.param_groups, groups, strict=True)
    ]
    if None in moves:
        return _by_its_optimizer(run, parameters)

    def move(row: Sequence[Tensor]) -> None:
        factor = run.factor
        with torch.no_grad():
            for inside, by_kernel, base in zip(groups, moves, run.base, strict=True):
                assert by_kernel is not None
                by_kernel([row[k] for k in inside], base * factor)

    return move


def _still(gradients: list[Tensor], lr: float) -> None:
    """A group without parameters here."""


def _by_its_optimizer(run: Training, parameters: Sequence[Tensor]) -> Callable[[Sequence[Tensor]], None]:
    def move(row: Sequence[Tensor]) -> None:
        assert run.optimizer is not None
        for parameter, gradient in zip(parameters, row, strict=True):
            parameter.grad = gradient
        run.schedule()
        run.optimizer.step()

    return move


def kernel(cls: type, options: dict[str, Any], parameters: list[Tensor]) -> Move | None:
    """The fused kernel that does what torch's optimizer `cls` with these options would; None where there is none."""
    make = KERNELS.get(cls)
    plain = not options.get("capturable") and not options.get("differentiable") and not parameters[0].is_complex()
    return make(options, parameters) if make is not None and plain and isinstance(options["lr"], float) else None


def _zeros(parameters: Sequence[Tensor], value: float = 0.0) -> list[Tensor]:
    return [torch.full_like(parameter, value, requires_grad=False) for parameter in parameters]


def _counts(parameters: Sequence[Tensor], value: float = 0.0) -> list[Tensor]:
    return [torch.tensor(value, device=parameter.device) for parameter in parameters]


def _sgd(options: dict[str, Any], parameters: list[Tensor]) -> Move:
    buffers = _zeros(parameters) if options["momentum"] else []
    fixed = {name: options[name] for name in ("weight_decay", "momentum", "dampening", "nesterov", "maximize")}
    first = True

    def move(gradients: list[Tensor], lr: float) -> None:
        nonlocal first
        torch._fused_sgd_(parameters, gradients, buffers, lr=lr, is_first_step=first, **fixed)  # type: ignore[attr-defined]
        first = False

    return move


def _adam(options: dict[str, Any], parameters: list[Tensor], decoupled: bool = False) -> Move:
    decoupled = decoupled or options.get("decoupled_weight_decay", False)
    call = torch._fused_adamw_ if decoupled else torch._fused_adam_  # type: ignore[attr-defined]
    means, squares, steps = _zeros(parameters), _zeros(parameters), _counts(parameters)
    largest = _zeros(parameters) if options["amsgrad"] else []
    fixed = {name: options[name] for name in ("weight_decay", "eps", "amsgrad", "maximize")}
    beta1, beta2 = options["betas"]

    def move(gradients: list[Tensor], lr: float) -> None:
        torch._foreach_add_(steps, 1)
        call(parameters, gradients, means, squares, largest, steps, lr=lr, beta1=beta1, beta2=beta2, **fixed)

    return move


def _adamw(options: dict[str, Any], parameters: list[Tensor]) -> Move:
    return _adam(options, parameters, decoupled=True)


def _rmsprop(options: dict[str, Any], parameters: list[Tensor]) -> Move | None:
    """Adam that has no momentum and is past its beginning: torch has no fused kernel of RMSProp's own."""
    if options["momentum"] or options["centered"] or not options["alpha"] < 1:
        return None
    means, squares, steps = _zeros(parameters), _zeros(parameters), _counts(parameters, ALWAYS)
    fixed = {name: options[name] for name in ("weight_decay", "eps", "maximize")}

    def move(gradients: list[Tensor], lr: float) -> None:
        torch._fused_adam_(  # type: ignore[attr-defined]
            parameters, gradients, means, squares, [], steps, lr=lr, beta1=0.0, beta2=options["alpha"], amsgrad=False,
            **fixed,
        )  # fmt: skip

    return move


def _adagrad(options: dict[str, Any], parameters: list[Tensor]) -> Move:
    sums, steps = _zeros(parameters, options["initial_accumulator_value"]), _counts(parameters)
    fixed = {name: options[name] for name in ("lr_decay", "weight_decay", "eps", "maximize")}

    def move(gradients: list[Tensor], lr: float) -> None:
        torch._foreach_add_(steps, 1)
        torch._fused_adagrad_(parameters, gradients, sums, steps, lr=lr, **fixed)  # type: ignore[attr-defined]

    return move


KERNELS: dict[type, Callable[[dict[str, Any], list[Tensor]], Move | None]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adamw,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
}
