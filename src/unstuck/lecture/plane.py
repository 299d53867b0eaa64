"""A loss of two numbers, as the lecture draws it: its heights, its slopes, and the ways of optimizers across it.

    def loss(x, y):
        return (1 - x * y) ** 2

    surface(loss, "loss", (-2, 2), (-2, 2))
    descend(loss, (0.1, 0.2), SGD, 100, lr=0.1).losses[-1]

A loss takes two float64 tensors of one shape and gives the heights at each pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.optim.rule import Rule, numbers
from unstuck.records import Arrow, Curve, Surface

Loss = Callable[[Tensor, Tensor], Tensor]
Span = tuple[float, float]
Place = tuple[float, float]


@dataclass(frozen=True)
class Path:
    """Where an optimizer went: `places` [steps + 1, 2], the loss and the slope (gradient) at each, float64."""

    places: Tensor
    losses: Tensor
    slopes: Tensor

    def first(self, steps: int) -> Path:
        """The way of so many updates at most."""
        return Path(self.places[: steps + 1], self.losses[: steps + 1], self.slopes[: steps + 1])

    def curve(self, name: str) -> Curve:
        """The way, to be drawn on a surface."""
        return Curve(name, tuple(self.places[:, 0].tolist()), tuple(self.places[:, 1].tolist()))

    def course(self, name: str) -> Curve:
        """The loss over the steps."""
        return Curve(name, tuple(map(float, range(len(self.losses)))), tuple(self.losses.tolist()))


def surface(loss: Loss, name: str, x: Span, y: Span, points: int = 81, log: bool = False) -> Surface:
    """The heights over x × y, on `points` by `points` places."""
    across, up = (torch.linspace(*span, points, dtype=torch.float64) for span in (x, y))
    rows, columns = torch.meshgrid(up, across, indexing="ij")
    z = loss(columns, rows).detach()
    return Surface(name, tuple(across.tolist()), tuple(up.tolist()), tuple(map(tuple, z.tolist())), log)


def gradient(loss: Loss, place: Place | Tensor) -> Tensor:
    """∇L [2] at the place, by automatic differentiation."""
    at = torch.as_tensor(place, dtype=torch.float64).clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(at[0], at[1]), at)
    return slope.detach()


def hessian(loss: Loss, place: Place) -> Tensor:
    """∇²L [2, 2] at the place, by automatic differentiation."""
    at = torch.tensor(place, dtype=torch.float64)
    return torch.autograd.functional.hessian(lambda p: loss(p[0], p[1]), at)  # type: ignore[no-any-return]


def descend(
    loss: Loss, start: Place, rule: Rule, steps: int, factor: Callable[[int], float] = lambda step: 1.0,
    noise: Callable[[int], Tensor] | None = None, **hyper: float,
) -> Path:  # fmt: skip
    """The way that `rule` goes from `start`: so many updates by the true gradient plus `noise(step)` [2].

    `hyper`: the rule's numbers (lr, momentum, …); `factor(step)` multiplies the rate, 0 at the first update. Costs a
    gradient a step. Raises BadArgument for a number that the rule does not know.
    """
    place = torch.tensor([start], dtype=torch.float64)
    given = numbers(rule, 1, **hyper)
    state = rule.init(place, given, frozenset())
    places, slopes = [place[0]], [gradient(loss, place[0])]
    for step in range(steps):
        slope = slopes[-1] + (noise(step) if noise is not None else 0.0)
        now = {**given, "lr": given["lr"] * factor(step)}
        place, state = rule.update(place, slope[None], state, now, frozenset(), step + 1)
        places.append(place[0])
        slopes.append(gradient(loss, place[0]))
    way = torch.stack(places)
    return Path(way, loss(way[:, 0], way[:, 1]).detach(), torch.stack(slopes))


def field(loss: Loss, x: Span, y: Span, across: int = 9, length: float = 0.7) -> tuple[Arrow, ...]:
    """Arrows against the gradient on `across` by `across` places; the longest is `length` of their distance, the
    others go by the square root of the slope, so that small ones are seen."""
    xs, ys = (torch.linspace(*span, across + 2, dtype=torch.float64)[1:-1].tolist() for span in (x, y))
    slopes = {(a, b): -gradient(loss, (a, b)) for a in xs for b in ys}
    steepest = max(float(slope.norm()) for slope in slopes.values()) or 1.0
    apart = min(xs[1] - xs[0], ys[1] - ys[0]) * length
    arrows = []
    for (a, b), slope in slopes.items():
        size = float(slope.norm())
        scale = apart * (size / steepest) ** 0.5 / size if size > 0 else 0.0
        arrows.append(Arrow(a, b, float(slope[0]) * scale, float(slope[1]) * scale))
    return tuple(arrows)
