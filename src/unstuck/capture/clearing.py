"""Whether gradients are cleared between an optimizer's steps, told from one parameter's gradient as it comes and goes.

After a step its gradients are left in place. A backward that reaches a parameter again either finds its gradient gone
(cleared) or will add to it (not cleared, if all of them do until the next step). A backward of another loss, which does
not reach the parameter (a discriminator's between two steps of the generator), says nothing: the loss's graph tells.

Costs a walk over the loss's graph (a microsecond a node) for backwards between a sampled step and the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LOOKED_AT = 8
"""So many parameters are tried for one that has a gradient to follow."""

NODES = 20_000


@dataclass
class Trail:
    """One parameter's gradient since a step: whether every backward that reached it found it filled (`dirty`), and
    whether it was cleared after one of them (`discarded`)."""

    parameter: Tensor
    dirty: bool | None = None
    discarded: bool = False

    def look(self, loss: Tensor) -> None:
        """Note the gradient as it stands before a backward from `loss`."""
        grad = self.parameter.grad
        filled = grad is not None and bool(grad.any())
        self.discarded |= self.dirty is not None and not filled
        if reaches(loss, self.parameter):
            # Old gradients matter only if they are still there at the step: another's loss may add to them before.
            self.dirty = filled and self.dirty is not False


class Clearing:
    """What was found: `checked`, one flag (cleared or not) a checked step of each optimizer (by id); `discarded`, one
    flag a checked step of several backwards."""

    def __init__(self) -> None:
        self.checked: dict[int, list[bool]] = {}
        self.discarded: list[bool] = []
        self._trails: dict[int, Trail] = {}

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Follow one gradient of an optimizer that has just stepped."""
        held: list[Any] = [p for group in optimizer.param_groups for p in group["params"]][:LOOKED_AT]
        filled = next((p for p in held if p.grad is not None and not p.grad.is_sparse and bool(p.grad.any())), None)
        if filled is not None:
            self._trails[id(optimizer)] = Trail(filled)

    @property
    def cleared(self) -> list[bool]:
        """The flags of all optimizers."""
        return [flag for flags in self.checked.values() for flag in flags]

    @property
    def following(self) -> bool:
        """True while a gradient is followed."""
        return bool(self._trails)

    def before_backward(self, loss: Tensor) -> None:
        """Look at the followed gradients just before a backward adds to them."""
        for trail in self._trails.values():
            trail.look(loss)

    def before_step(self, optimizer: torch.optim.Optimizer, backwards: int) -> None:
        """End the trail of an optimizer about to step, after so many backwards since the last step."""
        trail = self._trails.pop(id(optimizer), None)
        if trail is None or trail.dirty is None:
            return
        self.checked.setdefault(id(optimizer), []).append(not trail.dirty)
        if backwards > 1:
            self.discarded.append(trail.discarded)


def reaches(loss: Tensor, parameter: Tensor) -> bool:
    """True if the loss's graph leads to this leaf, within `NODES` nodes."""
    open_: list[Any] = [loss.grad_fn]
    known: set[Any] = set()
    while open_ and len(known) < NODES:
        node = open_.pop()
        if node is None or node in known:
            continue
        if getattr(node, "variable", None) is parameter:
            return True
        known.add(node)
        open_ += [following for following, _ in node.next_functions]
    return False
