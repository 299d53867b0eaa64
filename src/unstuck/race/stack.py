"""Many trainings of one signature at once: their parameters stacked, one vmap over forward and backward.

    stack = Stack(problems, seed=0)
    stack.advance(100)
    stack.losses                    # [steps, lanes]
    stack.runs[3].score(batches)    # each lane is a `Training` like any other

Lanes share the model's form, the loss, the batches and the seed; they differ in where they start, in optimizer and
hyperparameters. All see the same batches in the same order, and the same dropout masks. A lane equals the same
`Training` alone to round-off. One whose loss stops being finite is retired, and moves no more.

Each lane's parameters and buffers are rows of the stacked ones, so that nothing is copied between the two. (`buffers`
holds what no gradient reaches too: frozen and unused parameters.)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from unstuck.optim.rule import along
from unstuck.problem import Batch, MeanLoss, Problem
from unstuck.race.one_by_one import OneByOne
from unstuck.race.traced import Traced
from unstuck.race.updates import Together, Updates
from unstuck.sandbox import sandbox
from unstuck.training import Training


def why_not(problem: Problem) -> str:
    """Why the problem cannot be a lane of a stack; empty if nothing speaks against it before it is tried."""
    loop, model = problem.loop, problem.model
    held = {name for _, names in problem.optimizer.groups for name in names} if problem.optimizer else set()
    loose = {name for name, p in model.named_parameters() if p.requires_grad} - held
    reasons = (
        (problem.optimizer is None or not loop.stepping, "no optimizer steps"),
        (bool(loose) and loop.clip is not None, "gradients that pile up where no optimizer holds them are clipped"),
        (loop.accumulate > 1, "gradients are accumulated"),
        (bool(loop.detached) or loop.uncleared >= 0.5 or bool(loop.kept), "gradients are not cleared, or do not flow"),
        (loop.loss_scale != 1.0 or loop.autocast is not None, "mixed precision"),
        (len({p.dtype for p in model.parameters() if p.requires_grad}) != 1, "parameters of several dtypes, or none"),
        (len({p.device for p in model.parameters()}) != 1, "parameters on several devices"),
    )
    return next((why for holds, why in reasons if holds), "")


def signature(problem: Problem, seed: int) -> Hashable:
    """Equal for lanes that may stand in one stack."""
    tensors = [*problem.model.named_parameters(), *problem.model.named_buffers()]
    shapes = tuple((name, t.shape, t.dtype, t.requires_grad) for name, t in tensors)
    modes = tuple(sorted(problem.loop.training.items()))
    rewrites = id(problem.rewrites) if problem.rewrites else None
    forms = tuple((type(m).__qualname__, m.extra_repr()) for m in problem.model.modules())
    return seed, shapes, forms, modes, id(problem.loss), id(problem.data), problem.loop.clip, rewrites


class Stack:
    """Lanes in training. `losses`: those of each step, [lanes] each; `steps` made; `diverged` [lanes]."""

    def __init__(
        self, problems: Sequence[Problem], seed: int = 0, mix: bool = True, together: bool = True, traced: bool = False
    ) -> None:
        self.runs = [Training(problem, seed, mix) for problem in problems]
        self.seed, self.steps = seed, 0
        self._batches = self.runs[0].next_batch
        self._clipping = problems[0].loop.clip
        self.losses: list[Tensor] = []
        model = problems[0].twin()
        self._loss = MeanLoss(problems[0], model)
        self.names = _reached(self._loss, tuple(problems[0].data[0]))
        own = [{**dict(run.model.named_parameters()), **dict(run.model.named_buffers())} for run in self.runs]
        self.shapes = [own[0][name].shape for name in self.names]
        self.flat = torch.stack([torch.cat([tensors[n].detach().reshape(-1) for n in self.names]) for tensors in own])
        self.buffers = {
            name: torch.stack([tensors[name].detach() for tensors in own]) for name in own[0] if name not in self.names
        }
        self.diverged = torch.zeros(len(self.runs), dtype=torch.bool, device=self.flat.device)
        self.use(together)
        self._each = Traced(self._direct) if traced else self._direct
        self._out: list[int] = []
        self._scheduled = any(problem.loop.schedule for problem in problems)
        self._settle()

    def advance(self, steps: int) -> None:
        """Make `steps` optimizer steps in every lane that has not diverged."""
        with sandbox():
            self.run(steps)

    def run(self, steps: int) -> None:
        """The same inside of a sandbox of the caller's."""
        for _ in range(steps):
            if len(self._out) == len(self.runs):
                break
            torch.default_generator.manual_seed(self.seed * 1_000_003 + self.steps)
            self._step()
        self._share(self.buffers)

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone; `losses` up to here keep their old places."""
        chosen = torch.as_tensor(list(lanes), device=self.flat.device)
        self.runs = [self.runs[lane] for lane in lanes]
        self.flat, self.diverged = self.flat[chosen], self.diverged[chosen]
        self.buffers = {name: value[chosen] for name, value in self.buffers.items()}
        self.updates.keep(lanes)
        self._settle()

    def use(self, together: bool) -> None:
        """Move all lanes at once from now on, or one by one. Only before the first step: both have a memory."""
        self._way = Together if together else OneByOne
        self.updates: Updates = self._way(self.runs, self.names, self.shapes)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Steps made inside of this are undone: the lanes stand where they begin, as they must before it."""
        flat, buffers = self.flat.clone(), {name: value.clone() for name, value in self.buffers.items()}
        yield
        self.flat.copy_(flat)
        self.buffers, self.losses, self.steps = buffers, [], 0
        self.diverged = torch.zeros_like(self.diverged)
        self.runs[0].rewind()
        self.updates = self._way(self.runs, self.names, self.shapes)
        self._settle()

    def _step(self) -> None:
        gradients, losses = self._gradients(self._batches())
        self.losses.append(losses)
        if not math.isfinite(float(losses.sum())):  # one number to look at, of all lanes
            self.diverged = self.diverged | ~torch.isfinite(losses)
            self._out = self.diverged.nonzero().flatten().tolist()
        self.steps += 1
        for run in self.runs if self._scheduled else ():
            run.steps = self.steps
        self._clip(gradients)
        self.updates.step(self.flat, gradients, self._out, self.steps)

    def _gradients(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """(gradient [lanes, …] of each parameter, losses [lanes]) of one batch; buffers move on."""
        gradients, losses, self.buffers = self._each((self._parts, self.buffers, batch))
        return gradients, losses.detach()

    def _direct(
        self, inputs: tuple[list[Tensor], dict[str, Tensor], Batch]
    ) -> tuple[list[Tensor], Tensor, dict[str, Tensor]]:
        parts, buffers, batch = inputs

        def loss(parameters: list[Tensor], buffers: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            moving = {name: value.clone() for name, value in buffers.items()}
            named = {**dict(zip(self.names, parameters, strict=True)), **moving}
            return functional_call(self._loss, {f"model.{n}": v for n, v in named.items()}, (batch,)), moving

        each = vmap(grad_and_value(loss, has_aux=True), randomness="same")
        gradients, (losses, moved) = each(parts, buffers)
        return gradients, losses, moved

    def _split(self, flat: Tensor) -> list[Tensor]:
        """Rows [lanes, n] → one tensor [lanes, …] per parameter, views."""
        parts = flat.split([shape.numel() for shape in self.shapes], 1)
        return [part.view(len(flat), *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def _clip(self, gradients: Sequence[Tensor]) -> None:
        clip = self._clipping
        if clip is None:
            return
        if clip.kind == "value":
            for gradient in gradients:
                gradient.clamp_(-clip.bound, clip.bound)
            return
        each = [torch.linalg.vector_norm(gradient.flatten(1), clip.order, dim=1) for gradient in gradients]
        norms = torch.linalg.vector_norm(torch.stack(each), clip.order, dim=0)
        factor = (clip.bound / (norms + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
        for gradient in gradients:
            gradient *= along(factor, gradient)

    def _settle(self) -> None:
        """Note what stays from step to step: the parameters are moved where they are."""
        self._parts = self._split(self.flat)
        self._out = self.diverged.nonzero().flatten().tolist()
        self._own = [{**dict(run.model.named_parameters()), **dict(run.model.named_buffers())} for run in self.runs]
        self._share({**dict(zip(self.names, self._parts, strict=True)), **self.buffers})

    def _share(self, tensors: Mapping[str, Tensor]) -> None:
        """Let every lane's own model hold its rows of these."""
        for lane, (run, own) in enumerate(zip(self.runs, self._own, strict=True)):
            run.diverged, run.steps = lane in self._out, self.steps
            for name, stacked in tensors.items():
                own[name].data = stacked[lane]


def _reached(loss: MeanLoss, batch: Batch) -> list[str]:
    """The parameters that the loss has a gradient for: an optimizer leaves the others alone, decay or not."""
    with sandbox(0):
        model = copy.deepcopy(loss.model)
        MeanLoss(loss.problem, model)(batch).backward()
    return [name for name, parameter in model.named_parameters() if parameter.grad is not None]
