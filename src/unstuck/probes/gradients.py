"""Gradients and steps, layer by layer, where the training began and where it was left.

For each layer: the size of its weights against what keeps a signal's variance, its gradient, and how far one step of
the user's optimizer (with its recorded state) moves it. For each call of a layer in the loss: the gradient of what it
gives, which tells vanishing and exploding through depth apart from the size of the layers. For a recurrent call: the
gradient of its input at each time.

    g.first.signals[0].norm / g.first.signals[-1].norm     # ≪ 1: the gradient vanishes on its way down
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unstuck.errors import UnstuckError
from unstuck.loop import Clip
from unstuck.probes.anatomy import LAYERS
from unstuck.probes.layers import Layer, layers_of, norm_of, ratio
from unstuck.problem import Batch, Problem
from unstuck.recipe import OptimizerRecipe, load_optimizer
from unstuck.sandbox import reseed, sandbox
from unstuck.tape import tensors_in
from unstuck.trace import Seen, trace
from unstuck.training import clip

BATCHES = 4
RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})


@dataclass(frozen=True)
class Signal:
    """The gradient of what one call of a layer gives: its norm, over batches of equal size."""

    key: tuple[str, int]
    where: str
    norm: float
    output: float


@dataclass(frozen=True)
class Point:
    """One state of the training. `through_time`: norm of the gradient of the recurrent input at each time; `norms`:
    of the whole gradient, batch by batch; `left`: share of it that the loop's clipping leaves (median of the batches);
    `cosine`: mean over pairs of consecutive batches; `loss`: mean."""

    layers: tuple[Layer, ...]
    signals: tuple[Signal, ...]
    through_time: tuple[float, ...]
    norms: tuple[float, ...]
    left: float
    cosine: float
    loss: float

    @property
    def step(self) -> float:
        """Median over layers of step / weights."""
        return _median([layer.step for layer in self.layers])

    @property
    def spread(self) -> float:
        """Largest over smallest gradient an entry, over layers that get any."""
        found = [layer.entry for layer in self.layers if layer.entry > 0]
        return max(found) / min(found) if found else float("nan")


@dataclass(frozen=True)
class Gradients:
    """Start and end; at the end also two ratios of what one step would be.

    exhausted   the step with the optimizer's recorded state, as a share of what it would be with a fresh one
    decay       what weight decay adds to the first step, as a share of what the loss's gradient does
    shrunk      norm of all weights at the end / at the start
    moved       distance between start and end / norm of the weights at the start
    """

    first: Point
    last: Point
    exhausted: float
    decay: float
    shrunk: float
    moved: float


def measure(problem: Problem) -> Gradients:
    """Two times four gradients, and five single steps on copies. Raises UnstuckError where the loss has no gradient."""
    with sandbox(0):
        start, end = problem.twin(), problem.twin(last=True)
        before = {n: p.detach().clone() for n, p in start.named_parameters()}
        after = {n: p.detach().clone() for n, p in end.named_parameters()}
        recipe = problem.optimizer
        bare = replace(recipe, state={}) if recipe else None
        used = _at(recipe, problem.loop.schedule[-1] if problem.loop.schedule else 1.0)
        fresh = replace(used, state={}) if used else None
        first = _point(problem, start, bare)
        last = _point(problem, end, used)
        weights = [n for n, p in before.items() if p.dim() >= 2] or list(before)
        size = norm_of(before[n] for n in weights)
        return Gradients(
            first=first,
            last=last,
            exhausted=ratio(norm_of(_step(problem, end, used).values()), norm_of(_step(problem, end, fresh).values())),
            decay=_decay(problem, start, bare),
            shrunk=ratio(norm_of(after[n] for n in weights), size),
            moved=ratio(norm_of(after[n] - before[n] for n in before), norm_of(before.values())),
        )


def _at(recipe: OptimizerRecipe | None, factor: float) -> OptimizerRecipe | None:
    return recipe.scaled(factor) if recipe and all("lr" in hyper for hyper, _ in recipe.groups) else recipe


def _point(problem: Problem, model: nn.Module, recipe: OptimizerRecipe | None) -> Point:
    names = {n: p for n, p in model.named_parameters() if p.requires_grad}
    losses: list[float] = []
    batches: list[dict[str, Tensor]] = []
    for batch in problem.data[:BATCHES]:
        loss, found = gradient(problem, model, batch)
        losses.append(loss)
        batches.append(found)
    steps = _step(problem, model, recipe)
    flat = [torch.cat([g.flatten().float() for g in found.values()]) for found in batches]
    pairs = [float(torch.cosine_similarity(a, b, dim=0)) for a, b in itertools.pairwise(flat)]
    return Point(
        layers=tuple(layers_of(model, names, batches, steps)),
        signals=_signals(problem, model, problem.data[0]),
        through_time=_through_time(problem, model, problem.data[0]),
        norms=tuple(float(f.norm()) for f in flat),
        left=_median([_left(f, problem.loop.clip) for f in flat]),
        cosine=sum(pairs) / len(pairs) if pairs else float("nan"),
        loss=sum(losses) / len(losses),
    )


def _left(gradient: Tensor, clip: Clip | None) -> float:
    if clip is None or not bool(gradient.any()):
        return 1.0
    if clip.kind == "norm":
        return min(1.0, clip.bound / float(gradient.norm(clip.order)))
    return float(gradient.clamp(-clip.bound, clip.bound).norm() / gradient.norm())


def gradient(problem: Problem, model: nn.Module, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient by parameter name (zeros where there is none) on a copy. One gradient."""
    names = {n: p for n, p in model.named_parameters() if p.requires_grad}
    state = {n: b.clone() for n, b in model.named_buffers()}
    value = problem.value(model, batch)
    if not value.requires_grad or not names:
        raise UnstuckError("the loss has no gradient with respect to any parameter")
    value = value.mean() if value.numel() > 1 else value
    grads = torch.autograd.grad(value, list(names.values()), allow_unused=True)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(state[name])
    return float(value.detach()), {
        n: torch.zeros_like(p) if g is None else g.detach().to_dense()
        for (n, p), g in zip(names.items(), grads, strict=True)
    }


def _signals(problem: Problem, model: nn.Module, batch: Batch) -> tuple[Signal, ...]:
    state = copy.deepcopy(model)
    seen = trace(problem, state, batch)
    calls = [c for c in seen.ancestors if c.name in LAYERS and _given(c) is not None and seen.lives(_given(c))]
    given = [t for t in map(_given, calls) if t is not None]
    loss = seen.loss.mean() if seen.loss.numel() > 1 else seen.loss
    if not given or not loss.requires_grad:
        return ()
    grads = torch.autograd.grad(loss, given, allow_unused=True)
    return tuple(
        Signal(call.key, call.where, float(g.float().norm()), float(t.detach().float().square().mean().sqrt()))
        for call, t, g in zip(calls, given, grads, strict=True)
        if g is not None
    )


def _given(call: Seen) -> Tensor | None:
    return next((t for t in tensors_in(call.output) if t.requires_grad and t.is_floating_point()), None)


def _through_time(problem: Problem, model: nn.Module, batch: Batch) -> tuple[float, ...]:
    """Norm of the loss's gradient at each time of the first one-way recurrent call's input; () where there is none."""
    calls = [c for c in trace(problem, copy.deepcopy(model), batch).calls if c.name in RECURRENT]
    if not calls or len(calls[0].args) != 9 or not isinstance(calls[0].args[0], Tensor) or calls[0].args[7]:
        return ()
    time = 1 if calls[0].args[8] and calls[0].args[0].dim() == 3 else 0
    kept: list[Tensor] = []

    def watched(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kept.append(args[0].detach().requires_grad_())
        return function(kept[0], *args[1:], **kwargs)

    changed = replace(problem, rewrites={**problem.rewrites, calls[0].key: watched})
    loss = changed.value(copy.deepcopy(model), batch)
    (grad,) = torch.autograd.grad(loss.mean() if loss.numel() > 1 else loss, kept, allow_unused=True)
    if grad is None:
        return ()
    return tuple(grad.float().movedim(time, 0).flatten(1).norm(dim=1).tolist())


def _step(problem: Problem, model: nn.Module, recipe: OptimizerRecipe | None) -> dict[str, Tensor]:
    """What one step of this optimizer on the first batch adds to each parameter; {} without an optimizer."""
    if recipe is None:
        return {}
    model = copy.deepcopy(model)
    reseed(0)  # steps are compared: each with the same dropout
    _, grads = gradient(problem, model, problem.data[0])
    optimizer = recipe.build(model)
    load_optimizer(optimizer, model, recipe)
    own = dict(model.named_parameters())
    before = {n: own[n].detach().clone() for n in grads}
    for name, grad in grads.items():
        own[name].grad = grad
    clip(model, problem.loop)
    optimizer.step()
    return {n: own[n].detach() - before[n] for n in grads}


def _decay(problem: Problem, model: nn.Module, recipe: OptimizerRecipe | None) -> float:
    """‖step − step without decay‖ / ‖step without decay‖; 0 where nothing decays."""
    if recipe is None or not any(hyper.get("weight_decay") for hyper, _ in recipe.groups):
        return 0.0
    whole = _step(problem, model, recipe)
    loss = _step(problem, model, recipe.with_options(weight_decay=0.0))
    return ratio(norm_of(whole[n] - loss[n] for n in whole), norm_of(loss.values()))


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else float("nan")
