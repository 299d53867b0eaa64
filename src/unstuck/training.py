"""Training a Problem on a copy, as the user's loop does it: same order of batches, schedule, clipping, modes, faults.

    run = Training(problem, seed=1)
    run.advance(100)
    run.losses, run.score(problem.held_out)

A seed stands for an initialization and an order of batches. Seed 0 starts from the recorded initial state; other seeds
mix the entries of every weight tensor, which keeps their distribution whatever it is (zeros stay zeros), and are used
only where that leaves the initial loss as it was (`exchangeable`): a pretrained network keeps its weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from unstuck.criterion import Score, score
from unstuck.loop import Loop
from unstuck.problem import Batch, Problem
from unstuck.sandbox import reseed_torch, sandbox

EXCHANGE_TOLERANCE = 0.5
"""Mixing may move the initial loss by this share of itself: fresh random starts differ by so much, while a pretrained
network loses most of what it had learnt."""


class Training:
    """One run of a problem; `advance` as often as wanted. Everything random comes from `seed`."""

    def __init__(self, problem: Problem, seed: int = 0, mix: bool = True) -> None:
        self.problem, self.seed = problem, seed
        self.model = problem.twin()
        if seed and mix:
            mix_entries(self.model, seed)
        self.optimizer = problem.optimizer.build(self.model) if problem.optimizer else None
        self.base = [float(group.get("lr", 0.0)) for group in self.optimizer.param_groups] if self.optimizer else []
        self.losses: list[float] = []
        self.steps = 0
        self.diverged = False
        self.rewind()

    def advance(self, steps: int) -> None:
        """Make `steps` optimizer steps, or fewer where the loss stops being finite (`diverged`)."""
        with sandbox():
            for _ in range(steps):
                if self.diverged:
                    return
                reseed_torch(self.seed * 1_000_003 + self.steps)
                self._step()

    def score(self, batches: Sequence[Batch], limit: int = 32) -> Score:
        """Accuracy or R² in evaluation mode, and the loss, on at most `limit` batches."""
        flags = {name: module.training for name, module in self.model.named_modules()}
        with sandbox(0):
            result = score(self.problem, self.model, batches[:limit])
        for name, module in self.model.named_modules():
            module.training = flags[name]
        return result

    def _step(self) -> None:
        loop = self.problem.loop
        total = 0.0
        for part in range(loop.accumulate):
            loss = self.problem.value(self.model, self.next_batch())
            if part and loop.discarded > 0.5:
                self.model.zero_grad()
            if loss.requires_grad and not loop.detached:
                ((loss.mean() if loss.numel() > 1 else loss) * loop.loss_scale).backward()
            total += float(loss.detach().float().mean())
        self.losses.append(total / loop.accumulate)
        self.diverged = not math.isfinite(total)
        self.steps += 1
        if self.optimizer is None or not loop.stepping or self.diverged:
            return
        unscale(self.model, loop.loss_scale)
        clip(self.model, loop)
        self.schedule()
        self.optimizer.step()
        if loop.uncleared < 0.5:
            self.optimizer.zero_grad()
        elif loop.kept:
            for name, parameter in self.model.named_parameters():
                parameter.grad = parameter.grad if name in loop.kept else None

    def rewind(self) -> None:
        """Begin with the order of batches anew."""
        self._order: list[int] = []
        self._generator = torch.Generator().manual_seed(1000 + self.seed)

    def next_batch(self) -> Batch:
        """The batch of the next step, taken from its order."""
        data = self.problem.data
        if not self._order:
            ordered = self.problem.rows is not None and self.problem.rows.ordered
            count = len(data)
            self._order = list(range(count)) if ordered else torch.randperm(count, generator=self._generator).tolist()
        return tuple(data[self._order.pop(0)])

    def schedule(self) -> None:
        """Learning rates follow the recorded course, as factors of the recipe's."""
        if not self.problem.loop.schedule or self.optimizer is None:
            return
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * self.factor

    @property
    def factor(self) -> float:
        """What the schedule multiplies the recipe's learning rates with at the present step."""
        factors = self.problem.loop.schedule
        return factors[min(self.steps - 1, len(factors) - 1)] if factors else 1.0


def unscale(model: nn.Module, scale: float) -> None:
    """Divide the gradients by the loss's scale: what half precision flushed to zero on the way stays lost."""
    if scale != 1.0:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= scale


def clip(model: nn.Module, loop: Loop) -> None:
    """Clip the gradients as the loop does; where it clips scaled ones, the bound is smaller by the scale."""
    if loop.clip is None:
        return
    kind, bound, order = loop.clip
    bound /= loop.loss_scale if loop.clip_before_unscale else 1.0
    if kind == "norm":
        nn.utils.clip_grad_norm_(model.parameters(), bound, order)
    else:
        nn.utils.clip_grad_value_(model.parameters(), bound)


def mix_entries(model: nn.Module, seed: int) -> None:
    """Permute the entries of every parameter of two or more dimensions: a fresh draw from the same distribution."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))


def exchangeable(problem: Problem, batches: int = 4) -> bool:
    """True if mixing the entries of the weights leaves the initial loss about as it was. Two forward passes a batch."""
    plain, mixed = Training(problem, 0), Training(problem, 1)
    before, after = plain.score(problem.data, batches).loss, mixed.score(problem.data, batches).loss
    return not math.isfinite(before) or abs(after - before) <= EXCHANGE_TOLERANCE * max(abs(before), 1e-12)
