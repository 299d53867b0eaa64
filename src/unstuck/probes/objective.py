"""The objective: in which form outputs reach the criterion, which values they can take at all, and how the criterion's
mean enters the loss that is minimised.

    part       share of the loss that comes from the criterion (the rest: regularization, other terms)
    scale      Σ ∂L/∂c · c / (degree · mean criterion): Euler's theorem, 1 for a mean, −1 where it is maximised, N for a
               sum over N entries, 1/K where it is divided by K
    low, high  elementwise extremes of the output while every unit of the last layer is set to values from −10⁴ to 10⁴
    unreachable  share of the targets' variance that lies outside of [low, high]: no weights can bring R² above 1 − it

Everything at the initial state, where nothing has diverged; except `gradient_share`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unstuck.criterion import hot_axis
from unstuck.errors import UnstuckError
from unstuck.probes.activations import RECTIFIERS, SMOOTH, SQUASHERS
from unstuck.probes.anatomy import head
from unstuck.problem import Problem
from unstuck.rewriting import operands
from unstuck.sandbox import sandbox
from unstuck.trace import Seen, Trace, trace

SHAPES = frozenset({"view", "reshape", "squeeze", "unsqueeze", "flatten", "permute", "transpose", "contiguous", "float",
                    "to", "type", "double", "movedim", "T", "mT", "clone", "expand", "unflatten", "swapaxes", "view_as",
                    "reshape_as", "type_as", "select", "narrow", "__getitem__", "squeeze_", "t", "ravel"})  # fmt: skip
"""Calls that change the form of a tensor, not its values."""
SOFTMAXES = frozenset({"softmax", "log_softmax"})
ARITHMETIC = frozenset({"mul", "__mul__", "__rmul__", "add", "__add__", "__radd__", "sub", "__sub__", "rsub",
                        "__rsub__", "div", "__truediv__", "true_divide", "clamp", "clamp_", "clip", "exp", "neg",
                        "__neg__", "abs", "hardsigmoid", "relu", "sigmoid"})  # fmt: skip
WIDE = frozenset({"linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "addmm", "matmul",
                  "__matmul__"})  # fmt: skip
RECURRENT = frozenset({"lstm", "gru", "rnn_tanh"})
"""Their states lie between −1 and 1."""
GRID = (-1e4, -100.0, -10.0, -3.0, -1.0, -0.3, 0.0, 0.3, 1.0, 3.0, 10.0, 100.0, 1e4)
FAR = 1e3
"""An output that comes this far is taken as unbounded."""
TOLERANCE = 0.02
"""Sums of probabilities over the classes may be off 1 by this much: half precision, a small constant before the log."""


@dataclass(frozen=True)
class Objective:
    """See the module's text. `form`: probabilities or log-probabilities over dimension `axis`, or values (axis None);
    `classes`: the dimension that the criterion takes for the classes. `ending`: the last call before the criterion that
    changes values; `softmax`: the last softmax or log-softmax before it. `gradient_share`: gradient at the input of a
    final softmax or sigmoid, as a share of what cross-entropy would send there."""

    form: str
    axis: int | None
    classes: int
    ending: Seen | None
    softmax: Seen | None
    scale: float
    part: float
    low: float
    high: float
    unreachable: float
    gradient_share: float
    samples: int


def measure(problem: Problem) -> Objective:
    """Two forward and backward passes, and thirteen forward ones for the range. Raises UnstuckError where the criterion
    is unknown."""
    if problem.criterion.key is None:
        raise UnstuckError("the criterion is unknown")
    with sandbox(0):
        seen, call, output, target = _criterion(problem, problem.twin())
        calls = head(seen, output)
        low, high, missed = _reach(problem, seen, calls, output)
        classes = class_axis(problem, output, target)
        form, axis = form_of(output.detach(), classes)
        scale, part = scale_of(problem, seen, call)
        return Objective(
            form=form,
            axis=axis,
            classes=classes,
            ending=next((c for c in reversed(calls) if c.name not in SHAPES), None),
            softmax=next((c for c in reversed(calls) if c.name in SOFTMAXES), None),
            scale=scale,
            part=part,
            low=low,
            high=high,
            unreachable=missed,
            gradient_share=_gradient_share(problem),
            samples=len(output) if output.dim() else 1,
        )


def _criterion(problem: Problem, model: nn.Module) -> tuple[Trace, Seen, Tensor, Tensor]:
    seen = trace(problem, model, problem.data[0])
    call = next((c for c in seen.calls if c.key == problem.criterion.key), None)
    if call is None:
        raise UnstuckError("the criterion's call was not seen again")
    output, target = operands(call.args, call.kwargs, call.name)
    return (seen, call, target, output) if problem.criterion.flipped else (seen, call, output, target)


def class_axis(problem: Problem, output: Tensor, target: Tensor) -> int:
    """Where a one-hot target has its classes; else dimension 1 for torch's losses, and the last for what is picked or
    multiplied by hand, and for kl_div."""
    hot = hot_axis(target) if problem.criterion.task == "onehot" and target.shape == output.shape else None
    if hot is not None:
        return hot
    last = output.dim() - 1
    by_hand = problem.criterion.handwritten and problem.criterion.kind != "mse"
    return last if by_hand or problem.criterion.kind == "kl" else min(1, last)


def dimension(call: Seen) -> Any:
    """The `dim` that a softmax was called with; None where it was left to torch."""
    return call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else None)


def form_of(output: Tensor, classes: int) -> tuple[str, int | None]:
    """Probabilities or log-probabilities by their sums, over the classes' dimension if over any; else values."""
    dims = [classes, *(d for d in range(output.dim()) if d != classes)]
    if not output.is_floating_point() or not bool(output.isfinite().all()):
        return "values", None
    for name, values in (("probabilities", output), ("log-probabilities", output.exp())):
        positive = bool((values >= -1e-6).all()) and (name == "probabilities" or bool((output <= 1e-3).all()))
        for dim in dims if positive else []:
            if output.shape[dim] > 1 and bool(((values.double().sum(dim) - 1).abs() < TOLERANCE).all()):
                return name, dim
    return "values", None


def scale_of(problem: Problem, seen: Trace, call: Seen) -> tuple[float, float]:
    """How the mean of the criterion enters the loss, and its part of it; nan where that cannot be told.

    One backward pass.
    """
    found, unknown = call.output, (float("nan"), float("nan"))
    if not isinstance(found, Tensor) or not found.requires_grad or not seen.loss.requires_grad:
        return unknown
    (gradient,) = torch.autograd.grad(seen.loss.mean(), found, retain_graph=True, allow_unused=True)
    if gradient is None:
        return unknown
    with torch.no_grad():
        euler = float((gradient.double() * found.double()).sum())
        mean, degree = _mean(problem, seen, call, found.double())
    loss = float(seen.loss.detach().mean())
    whole = problem.criterion.kind == "nll_probabilities" or not loss
    return (euler / (degree * mean) if mean else float("nan")), (float("nan") if whole else euler / degree / loss)


def _mean(problem: Problem, seen: Trace, call: Seen, found: Tensor) -> tuple[float, float]:
    """The criterion's mean over its entries (samples, of class losses), and its degree in the call's output."""
    kind = problem.criterion.kind
    if not problem.criterion.handwritten:
        wanted = "batchmean" if kind == "kl" else "mean"
        keep = {k: v for k, v in call.kwargs.items() if k not in {"reduction", "size_average", "reduce"}}
        function = seen.linked.calls[call.index].function
        return float(function(*call.args[:2], **keep, reduction=wanted)), 1.0
    if kind == "mse":
        return float(found.square().mean()), 2.0
    if kind == "l1":
        return float(found.abs().mean()), 1.0
    if kind == "nll_probabilities":
        return -1.0, 1.0  # c · ∂(−log c)/∂c = −1 for each sample
    return -float(found.sum()) / max(len(found) if found.dim() else 1, 1), 1.0


def _reach(problem: Problem, seen: Trace, calls: Sequence[Seen], output: Tensor) -> tuple[float, float, float]:
    """Lowest and highest value that outputs can take, and the share of the targets' variance beyond; nan if unknown."""
    unknown = (float("nan"),) * 3
    layer = _layer(seen, calls, output)
    if layer is None or not _elementwise(seen, calls):
        return unknown
    outer = replace(problem, rewrites={})
    ending = next((c for c in reversed(calls) if c.name not in SHAPES), None)
    softmax = ending is not None and ending.name == "softmax"
    grid = (-1.0, 0.0, 1.0) if layer.name in RECURRENT else GRID
    lows, highs, goals = [], [], []
    with torch.no_grad():
        for batch in problem.data[:2]:
            results = [_at(outer, layer, value).evaluate(problem.twin(), batch) for value in grid]
            stack = torch.stack([r.output.double().flatten() for r in results if r.output is not None])
            low, high = stack.amin(0), stack.amax(0)
            lows.append(torch.zeros_like(low) if softmax else torch.where(low < -FAR, -math.inf, low))
            highs.append(torch.ones_like(high) if softmax else torch.where(high > FAR, math.inf, high))
            goals.append(results[0].target)
    low, high = torch.cat(lows), torch.cat(highs)
    return float(low.min()), float(high.max()), _missed(low, high, goals)


def _missed(low: Tensor, high: Tensor, goals: Sequence[Tensor | None]) -> float:
    """Mean squared distance of the targets from [low, high] over their variance; nan where they are no values."""
    values = [g for g in goals if g is not None and g.is_floating_point()]
    if len(values) < len(goals) or sum(g.numel() for g in values) != low.numel():
        return float("nan")
    rows = torch.cat([g.double().reshape(g.shape[0] if g.dim() else 1, -1) for g in values])
    flat = rows.flatten()
    missed = (flat - flat.clamp(low, high))[flat.isfinite()].square().mean()
    spread = rows[rows.isfinite().all(1)].var(0, unbiased=False).mean()
    return float(missed / spread.clamp_min(1e-300)) if missed > 0 else 0.0


def _at(problem: Problem, layer: Seen, value: float) -> Problem:
    """The problem with every unit of the layer's output set to `value`."""

    def constant(function, args, kwargs):  # type: ignore[no-untyped-def]
        made = function(*args, **kwargs)
        if isinstance(made, tuple):
            return (torch.full_like(made[0], value), *made[1:])
        return torch.full_like(made, value)

    return replace(problem, rewrites={layer.key: constant})


def _layer(seen: Trace, calls: Sequence[Seen], output: Tensor) -> Seen | None:
    """The last layer with parameters before the head; None where it is of a kind that has no simple range."""
    source = output if not calls else next((a for a in calls[0].args if seen.lives(a)), None)
    layer = seen.maker(source)
    return layer if layer is not None and layer.name in WIDE | RECURRENT else None


def _elementwise(seen: Trace, calls: Sequence[Seen]) -> bool:
    """Every call of the head works entry by entry, on one tensor that lives (a gate has two)."""
    allowed = SHAPES | ARITHMETIC | RECTIFIERS | SQUASHERS | SMOOTH | {"softmax"}
    return all(c.name in allowed and sum(map(seen.lives, (*c.args, *c.kwargs.values()))) == 1 for c in calls)


def _gradient_share(problem: Problem) -> float:
    """At the last state: ‖∂L/∂z‖ / ‖(p − t)/N‖ where p = softmax(z) or sigmoid(z) reaches a class target t."""
    if problem.criterion.task not in {"onehot", "binary"}:
        return float("nan")
    seen, _, output, target = _criterion(problem, problem.twin(last=True))
    ending = next((c for c in reversed(head(seen, output)) if c.name not in SHAPES), None)
    if ending is None or ending.name not in {"softmax", "sigmoid"} or not seen.loss.requires_grad:
        return float("nan")
    source = ending.args[0] if ending.args else ending.kwargs["input"]
    if output.shape != target.shape or not source.requires_grad:
        return float("nan")
    (gradient,) = torch.autograd.grad(seen.loss.mean(), source, allow_unused=True)
    # The mean runs over samples (and time steps), not over classes.
    means = target.numel() // target.shape[hot_axis(target) or 1] if problem.criterion.task == "onehot" else len(output)
    reference = (output.detach() - target).norm() / means
    return float(gradient.norm() / reference.clamp_min(1e-30)) if gradient is not None else float("nan")
