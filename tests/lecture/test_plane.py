from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unstuck.errors import BadArgument
from unstuck.lecture.plane import descend, field, gradient, hessian, surface
from unstuck.optim.adam import ADAM
from unstuck.optim.momentum import MOMENTUM
from unstuck.optim.sgd import SGD


def valley(x: Tensor, y: Tensor) -> Tensor:
    return 0.5 * x**2 + 10 * y**2


def test_the_surface_holds_the_loss_row_by_row() -> None:
    drawn = surface(valley, "loss", (-1.0, 1.0), (-2.0, 2.0), points=5)
    assert drawn.z[0][3] == valley(torch.tensor(drawn.x[3]), torch.tensor(drawn.y[0])).item()
    assert (len(drawn.z), len(drawn.z[0])) == (5, 5)


def test_slope_and_curvature_are_the_closed_form() -> None:
    assert gradient(valley, (2.0, 3.0)).tolist() == [2.0, 60.0]
    assert hessian(valley, (2.0, 3.0)).tolist() == [[1.0, 0.0], [0.0, 20.0]]


def test_plain_descent_on_a_quadratic_is_the_closed_form() -> None:
    path = descend(valley, (2.0, 1.0), SGD, 10, lr=0.05)
    t = torch.arange(11, dtype=torch.float64)
    assert torch.allclose(path.places[:, 0], 2 * 0.95**t)
    assert torch.allclose(path.places[1:, 1], torch.zeros_like(t[1:]))


def test_the_first_steps_of_a_way_are_a_shorter_way() -> None:
    long, short = (descend(valley, (2.0, 1.0), SGD, steps, lr=0.05) for steps in (10, 4))
    first = long.first(4)
    assert all(map(torch.equal, (first.places, first.losses, first.slopes), (short.places, short.losses, short.slopes)))


@pytest.mark.parametrize(
    ("rule", "cls", "options"),
    [(MOMENTUM, torch.optim.SGD, {"lr": 0.02, "momentum": 0.9}), (ADAM, torch.optim.Adam, {"lr": 0.1})],
)
def test_the_way_is_that_of_torch(rule, cls, options) -> None:
    place = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = cls([place], **options)
    for _ in range(30):
        optimizer.zero_grad()
        valley(place[0], place[1]).backward()
        optimizer.step()
    assert torch.allclose(descend(valley, (2.0, 1.0), rule, 30, **options).places[-1], place.detach())


def test_the_rate_follows_its_factor_and_noise_is_added_to_the_slope() -> None:
    still = descend(valley, (2.0, 1.0), SGD, 5, factor=lambda step: 0.0, lr=0.1)
    assert torch.equal(still.places[-1], still.places[0])
    pushed = descend(valley, (0.0, 0.0), SGD, 1, noise=lambda step: torch.tensor([1.0, 0.0]), lr=0.1)
    assert pushed.places[-1].tolist() == [-0.1, 0.0]


def test_arrows_point_downhill_and_none_reaches_its_neighbour() -> None:
    arrows = field(valley, (-1.0, 1.0), (-1.0, 1.0), across=5)
    for arrow in arrows:
        slope = gradient(valley, (arrow.x, arrow.y))
        assert arrow.dx * float(slope[0]) + arrow.dy * float(slope[1]) <= 0
        assert (arrow.dx**2 + arrow.dy**2) ** 0.5 < 2 / 6


def test_a_number_that_the_rule_does_not_know_is_refused() -> None:
    with pytest.raises(BadArgument, match="sgd has no `momentum`"):
        descend(valley, (1.0, 1.0), SGD, 1, momentum=0.9)
