"""Another loss, the same loss on outputs of another form, or the same loss with another factor or weights.

A criterion that is one torch call is replaced where it stands (what is added to it stays); one that is written by hand
becomes the whole loss. The score then reads outputs by the new criterion's kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstuck.criterion import hot_axis
from unstuck.problem import Batch, Problem, Program
from unstuck.remedies.remedy import Remedy
from unstuck.remedies.rewrite import instead, leave_out, rewritten
from unstuck.rewriting import CallKey, Rewrite, Rewriting, operands

Loss = Callable[[Tensor, Tensor], Tensor]


class Swapped(Program):
    """The value of `function` on what the criterion at `key` is given, in the place of the whole loss."""

    def __init__(self, program: Program, key: CallKey, flipped: bool, function: Loss) -> None:
        self.program, self.key, self.flipped, self.function = program, key, flipped, function

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """The new loss of `model` on `batch`."""
        with Rewriting({}, self.key) as mode:
            self.program(model, batch)
        assert mode.seen is not None
        output, target = reversed(mode.seen) if self.flipped else mode.seen
        return self.function(output, target)


class Scaled(Program):
    """The loss of another program, times `factor`."""

    def __init__(self, program: Program, factor: float) -> None:
        self.program, self.factor = program, factor

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """The scaled loss of `model` on `batch`."""
        return self.program(model, batch) * self.factor


def with_loss(problem: Problem, function: Loss, kind: str, rewrites: Mapping[CallKey, Rewrite]) -> Problem:
    """The problem with another criterion of this kind, and calls before it rewritten."""
    key = problem.criterion.key
    assert key is not None
    criterion = replace(problem.criterion, kind=kind, handwritten=False)
    if problem.criterion.handwritten:
        program = Swapped(problem.loss, key, problem.criterion.flipped, function)
        return rewritten(replace(problem, loss=program, criterion=criterion), rewrites)
    other: Rewrite = lambda f, args, kwargs: function(*operands(args, kwargs))  # noqa: E731
    return rewritten(replace(problem, criterion=criterion), {**rewrites, key: other})


def cross_entropy(problem: Problem, drop: Sequence[CallKey] = ()) -> Remedy:
    """Cross-entropy on the logits: by class where targets are classes or one-hot, with logits where they are 0 or 1."""
    gone = dict.fromkeys(drop, leave_out)
    if problem.criterion.task == "binary":
        return Remedy(
            "binary-cross-entropy",
            "use binary cross-entropy on the logits" + (" and leave out the last activation" if drop else ""),
            "criterion = nn.BCEWithLogitsLoss()",
            lambda p: with_loss(p, binary_with_logits, "bce_logits", gone),
        )
    return Remedy(
        "cross-entropy",
        "use cross-entropy on the logits" + (" and leave out the last activation" if drop else ""),
        "criterion = nn.CrossEntropyLoss()  # on logits and class indices",
        lambda p: with_loss(p, class_cross_entropy, "cross_entropy", gone),
    )


def plain_bce(problem: Problem) -> Remedy:
    """Binary cross-entropy that takes probabilities, for outputs that went through a sigmoid."""
    return Remedy(
        "plain-bce",
        "keep the sigmoid and use the loss that takes probabilities",
        "criterion = nn.BCELoss()",
        lambda p: with_loss(p, F.binary_cross_entropy, "bce", {}),
    )


def squared_error(problem: Problem, drop: Sequence[CallKey] = ()) -> Remedy:
    """Mean squared error, with the last activation left out."""
    return Remedy(
        "squared-error",
        "these targets are values, not probabilities: use squared error on an output without activation",
        "criterion = nn.MSELoss()",
        lambda p: with_loss(p, F.mse_loss, "mse", dict.fromkeys(drop, leave_out)),
    )


def log_probabilities(problem: Problem, dim: int) -> Remedy:
    """A log-softmax over the classes between output and criterion."""
    key, flipped = problem.criterion.key, problem.criterion.flipped
    assert key is not None

    def logged(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place = 1 if flipped else 0
        output = args[place] if len(args) > place else kwargs["input"]
        logs = F.log_softmax(output, dim)
        if len(args) > place:
            return function(*args[:place], logs, *args[place + 1 :], **kwargs)
        return function(*args, **{**kwargs, "input": logs})

    return Remedy(
        "log-softmax",
        "hand the loss log-probabilities",
        f"loss = criterion(F.log_softmax(output, dim={dim}), target)",
        lambda p: rewritten(p, {key: logged}),
    )


def softmax_along(key: CallKey, name: str, dim: int) -> Remedy:
    """The softmax (or log-softmax) at `key` over another dimension."""
    change = instead(lambda x: getattr(torch, name)(x, dim))
    return Remedy(
        "softmax-over-classes",
        "apply it over the classes",
        f"{name}(..., dim={dim})",
        lambda p: rewritten(p, {key: change}),
    )


def replace_call(key: CallKey, function: Callable[[Tensor], Tensor], id: str, text: str, code: str) -> Remedy:
    """Another function in the place of the call at `key`."""
    return Remedy(id, text, code, lambda p: rewritten(p, {key: instead(function)}))


def match_shapes(problem: Problem, output: tuple[int, ...], target: tuple[int, ...]) -> Remedy:
    """Reshape the target to the output before they are compared."""
    key, flipped = problem.criterion.key, problem.criterion.flipped
    assert key is not None

    def matched(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first, second = operands(args, kwargs)
        if flipped:
            first = first.reshape(second.shape)
        else:
            second = second.reshape(first.shape)
        rest = {k: v for k, v in kwargs.items() if k not in {"input", "target", "other"}}
        return function(first, second, *args[2:], **rest)

    return Remedy(
        "match-shapes",
        f"give the target the output's shape, {list(output)} instead of {list(target)}",
        "loss = criterion(output, target.view_as(output))",
        lambda p: rewritten(p, {key: matched}),
    )


def rescale_loss(problem: Problem, scale: float) -> Remedy:
    """Divide the loss by `scale`, so that it is the criterion's mean and is minimised."""
    if scale < 0:
        text, code = "minimise the loss: leave out the minus", "loss = criterion(output, target)"
    else:
        text, code = f"use the mean of the criterion as the loss (now {scale:.3g} times it)", 'reduction="mean"'
    return Remedy("rescale-loss", text, code, lambda p: replace(p, loss=Scaled(p.loss, 1 / scale)))


def weigh_classes(problem: Problem, shares: tuple[float, ...]) -> Remedy:
    """Balanced weights: each class counts as much as any other, whatever its number of samples."""
    key, kind = problem.criterion.key, problem.criterion.kind
    assert key is not None
    present = sum(s > 0 for s in shares)
    weights = torch.tensor([1 / (present * s) if s > 0 else 0.0 for s in shares])
    positive = shares[0] / max(shares[1], 1e-12) if len(shares) == 2 else 1.0

    def weighed(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output, target = operands(args, kwargs)
        rest = {k: v for k, v in kwargs.items() if k not in {"input", "target", "weight", "pos_weight"}}
        if kind == "bce_logits":
            return function(output, target, pos_weight=torch.as_tensor(positive).to(output), **rest)
        if kind == "bce":
            weight = torch.where(target > 0.5, 1 / (2 * max(shares[1], 1e-12)), 1 / (2 * max(shares[0], 1e-12)))
            return function(output, target, weight=weight.to(output), **rest)
        full = torch.zeros(output.shape[1]).to(output)
        full[: len(weights)] = weights.to(output)
        return function(output, target, weight=full, **rest)

    named = (
        f"pos_weight=torch.tensor({positive:.3g})"
        if kind == "bce_logits"
        else "weight=torch.tensor(["
        + (", ".join(f"{w:.3g}" for w in weights[:12].tolist()) + (", …" if len(weights) > 12 else "") + "])")
    )
    loss = {"bce_logits": "nn.BCEWithLogitsLoss", "nll": "nn.NLLLoss", "bce": "nn.BCELoss"}.get(
        kind, "nn.CrossEntropyLoss"
    )
    return Remedy(
        "balanced-weights",
        "weigh each class by the inverse of its frequency",
        f"criterion = {loss}({named})",
        lambda p: rewritten(p, {key: weighed}),
    )


def drop_weights(problem: Problem) -> Remedy:
    """The criterion without class weights."""
    key = problem.criterion.key
    assert key is not None

    def plain(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(*args[:2], **{k: v for k, v in kwargs.items() if k not in {"weight", "pos_weight"}})

    return Remedy(
        "drop-class-weights",
        "leave the class weights out",
        "criterion without weight=…",
        lambda p: rewritten(p, {key: plain}),
    )


def binary_with_logits(output: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy on logits, with the target in the output's shape and type."""
    return F.binary_cross_entropy_with_logits(output, target.to(output).reshape(output.shape))


def class_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of logits against class indices, or against one-hot rows of any type."""
    if target.shape != output.shape:
        return F.cross_entropy(output, target)
    axis = hot_axis(target) or 1
    return F.cross_entropy(output.movedim(axis, 1), target.to(output).movedim(axis, 1))
