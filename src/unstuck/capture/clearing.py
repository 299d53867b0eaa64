"""Whether gradients are cleared between an optimizer's steps, told from one parameter's gradient as it comes and goes.

After a step a gradient is left in place. The first backward that reaches the parameter again either finds it gone
(cleared) or adds to it (not cleared). Backwards of another loss, which do not reach the parameter (a discriminator's
between two steps of the generator), say nothing: the gradient's identity and version tell them apart.

Costs a look at one tensor a backward, between a sampled step and the next one of the same optimizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LOOKED_AT = 8
"""So many parameters are tried for one that has a gradient to follow."""


@dataclass
class Trail:
    """One parameter's gradient since a step: as it stood at the last look, and what the first backward found."""

    parameter: Tensor
    last: tuple[Tensor | None, int, bool] | None = None
    dirty: bool | None = None
    discarded: bool = False

    def look(self) -> None:
        """Note the gradient as it stands, and judge by what became of the one noted before."""
        grad = self.parameter.grad
        filled = grad is not None and bool(grad.any())
        if self.last is not None:
            before, version, was_filled = self.last
            # An empty gradient that is filled now was written by the backward in between; a filled one was added to
            # if it is the same tensor in another version. A filled one that is empty now was cleared in between.
            added = filled and (not was_filled or grad is not before or grad._version != version)  # type: ignore[union-attr]
            if added and self.dirty is None:
                self.dirty = was_filled
            elif self.dirty is not None and not filled:
                self.discarded = True
        self.last = (grad, grad._version if grad is not None else 0, filled)


class Clearing:
    """What was found: `cleared`, one flag a checked step; `discarded`, one flag a checked step of several backwards."""

    def __init__(self) -> None:
        self.cleared: list[bool] = []
        self.discarded: list[bool] = []
        self._trails: dict[int, Trail] = {}

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Follow one gradient of an optimizer that has just stepped."""
        held: list[Any] = [p for group in optimizer.param_groups for p in group["params"]][:LOOKED_AT]
        filled = next((p for p in held if p.grad is not None and not p.grad.is_sparse and bool(p.grad.any())), None)
        if filled is not None:
            self._trails[id(optimizer)] = Trail(filled)

    @property
    def following(self) -> bool:
        """True while a gradient is followed."""
        return bool(self._trails)

    def before_backward(self) -> None:
        """Look at the followed gradients just before a backward adds to them."""
        for trail in self._trails.values():
            trail.look()

    def before_step(self, optimizer: torch.optim.Optimizer, backwards: int) -> None:
        """End the trail of an optimizer about to step, after so many backwards since the last step."""
        trail = self._trails.pop(id(optimizer), None)
        if trail is None:
            return
        trail.look()
        if trail.dirty is not None:
            self.cleared.append(not trail.dirty)
        if backwards > 1:
            self.discarded.append(trail.discarded)
