"""The pulse of a training while nothing more is wanted: the loss and the learning rate at each backward.

The path that every step of the user's training takes, through one wrap only: the optimizer's hooks are off. It is kept
to the fewest Python operations, because the cold caches between two kernels make each of them some three times slower
than a timing loop shows: 1.5 microseconds a backward in all; the optimizer's hook would take as much again. So steps
are inferred from backwards: exact as long as every step has as many backwards as all before had; a learning rate that
is set between a backward and its step is seen one step late, and a last backward that no step followed counts as one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

STRETCH = 100_000
"""The longest stretch in backwards: what it notes is folded up at its end."""


class Pulse:
    """Notes backwards of a training by one optimizer, from `begin` until there are `room` losses; `losses` grows by one
    a backward. Otherwise, and for a loss that is no finite number, the observer is called."""

    def __init__(self, losses: list[Any]) -> None:
        self.losses = losses
        self.of: Optimizer | None = None
        self.room = 0
        self.rates: list[Any] = []

    def begin(self, optimizer: Optimizer, room: int) -> None:
        """Only note from here on."""
        self.of, self.room = optimizer, len(self.losses) + min(room, STRETCH)

    def note(self, value: float) -> None:
        """A backward from this loss."""
        self.losses.append(value)
        self.rates.append(self.of.param_groups[0]["lr"])  # type: ignore[union-attr]

    def end(self) -> list[float]:
        """The learning rate at each backward of the stretch."""
        rates = [float(rate) for rate in self.rates]
        self.of, self.room = None, 0
        self.rates.clear()
        return rates

    def backward(self, original: Callable[..., None], otherwise: Callable[[Tensor], None]) -> Callable[..., None]:
        """`Tensor.backward` that notes the loss first."""
        losses, rates = self.losses, self.rates
        add, add_rate, item = losses.append, rates.append, Tensor.item
        # For a plain tensor torch's own method does no more than pass its arguments on: one call less.
        plain = Tensor if original.__module__ == "torch._tensor" else None

        @functools.wraps(original)
        def backward(
            loss: Tensor, gradient: Any = None, retain_graph: Any = None, create_graph: bool = False, inputs: Any = None
        ) -> None:
            if len(losses) < self.room:
                try:
                    value = item(loss)
                except RuntimeError:  # not one number
                    value = float("nan")
                if value - value == 0.0:  # finite
                    add(value)
                    add_rate(self.of.param_groups[0]["lr"])  # type: ignore[union-attr]
                    run = torch.autograd.backward if type(loss) is plain else original
                    return run(loss, gradient, retain_graph, create_graph, inputs)
            otherwise(loss)
            return original(loss, gradient, retain_graph, create_graph, inputs)

        return backward
