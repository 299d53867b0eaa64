"""Out of saddles that are known: lower at once, and on to the optimum by plain descent."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.curvature.test_saddle import deep_linear
from tests.curvature.test_scan import axis, normal, of_function
from torch import Tensor, nn

import unstuck
from unstuck.curvature.escape import Escape, moved, step_out
from unstuck.curvature.product import Hessian
from unstuck.curvature.saddle import negative_curvature
from unstuck.curvature.scan import scan
from unstuck.errors import NotMeasurable
from unstuck.problem import Problem

F64 = torch.float64
VALUES = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=F64)


def loss_over(problem: Problem, model: nn.Module) -> Tensor:
    x, y = (torch.cat(column) for column in zip(*problem.data, *problem.held_out, strict=True))
    return problem.value(model, (x, y))


def plain_descent(problem: Problem, steps: int, lr: float = 0.1) -> float:
    model = problem.twin(last=True)
    for _ in range(steps):
        gradients = torch.autograd.grad(loss_over(problem, model), list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= lr * gradient
    return loss_over(problem, model).item()


def out_of(problem: Problem, seed: int = 0) -> Escape:
    hessian = Hessian(problem)
    found = negative_curvature(hessian, seed)
    assert found is not None
    return step_out(hessian, found.direction, scan(hessian, found.direction, found.rayleigh))


def test_from_a_deep_linear_saddle_plain_descent_reaches_the_optimum():
    problem = deep_linear(4, 2, VALUES, rows=64)
    stuck = float(VALUES[2:].square().sum()) / 4
    assert plain_descent(problem, 0) == pytest.approx(stuck)
    assert plain_descent(problem, 100) == pytest.approx(stuck)
    away = out_of(problem)
    beyond = moved(problem, away)
    assert away.loss == pytest.approx(stuck) and away.after < 0.9 * stuck
    assert plain_descent(beyond, 0) == pytest.approx(away.after)
    one_left = float(VALUES[3:].square().sum()) / 4
    assert plain_descent(beyond, 400) < one_left + 1e-3
    again = out_of(deep_linear(4, 3, VALUES, rows=64))
    assert plain_descent(moved(deep_linear(4, 3, VALUES, rows=64), again), 1000) < 1e-6


def test_the_length_is_that_of_the_lowest_loss():
    value = lambda w, x: 1 - w[0] ** 2 + w[0] ** 4 + w[1] ** 2 + 0 * x[:, 0]  # noqa: E731
    hessian = Hessian(of_function(value, torch.zeros(2, dtype=F64), normal(16, 2)))
    line = scan(hessian, axis(2, 0), -2.0)
    away = step_out(hessian, axis(2, 0), line)
    assert abs(away.length) == pytest.approx(0.5**0.5, rel=0.2)
    assert away.loss == 1.0 and away.after == pytest.approx(0.75, abs=0.02)
    assert away.after <= 1 + line.changes[line.best]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_better_side_is_taken(sign):
    value = lambda w, x: 1 - w[0] ** 2 + w[0] ** 4 + 0.3 * sign * w[0] ** 3 + 0 * x[:, 0]  # noqa: E731
    away = out_of(of_function(value, torch.zeros(1, dtype=F64), normal(16, 1)))
    assert away.length * float(away.direction) * sign < 0


def test_where_nothing_goes_down_no_step_is_made():
    hessian = Hessian(of_function(lambda w, x: 1 + w[0] ** 2 + 0 * x[:, 0], torch.zeros(1, dtype=F64), normal(16, 1)))
    away = step_out(hessian, axis(1, 0), scan(hessian, axis(1, 0), 2.0))
    assert away.length == 0.0 and away.after == away.loss == 1.0


def test_the_problem_that_was_given_is_not_moved():
    problem = deep_linear(4, 2, VALUES, rows=64)
    before = {name: tensor.clone() for name, tensor in problem.model.state_dict().items()}
    beyond = moved(problem, out_of(problem))
    assert all(torch.equal(before[name], tensor) for name, tensor in problem.model.state_dict().items())
    assert all(torch.equal(problem.last[name], before[name]) for name in before)
    assert not torch.equal(beyond.model[0].weight, problem.model[0].weight)
    assert torch.equal(beyond.twin().state_dict()["0.weight"], beyond.twin(last=True).state_dict()["0.weight"])


# --- unstuck.escape ---------------------------------------------------------------------------------------------------


class Product(nn.Module):
    """w₁ w₂ x, batch-normalized beside it so that there are buffers: the lecture's saddle at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.beside = nn.BatchNorm1d(1, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) + 0 * self.beside(x)


def lecture() -> tuple[Product, list[tuple[Tensor, Tensor]]]:
    model, x = Product(), torch.tensor([1.0, -1.0] * 8).unsqueeze(1)
    with torch.no_grad():
        model.first.weight.zero_(), model.second.weight.zero_()
    return model, [(x, x)]


def test_a_state_that_the_model_takes():
    model, loader = lecture()
    before = copy.deepcopy(model.state_dict())
    state = unstuck.escape(unstuck.Problem(model, nn.MSELoss(), loader))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert list(state) == list(before) and all(state[name].dtype == before[name].dtype for name in before)
    x, y = loader[0]
    assert nn.functional.mse_loss(model(x), y).item() == 1.0
    model.load_state_dict(state)
    assert nn.functional.mse_loss(model(x), y).item() < 0.05
    assert state["beside.num_batches_tracked"] == before["beside.num_batches_tracked"]


def test_the_same_seed_gives_the_same_step_and_draws_nothing_of_ours():
    model, loader = lecture()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = (unstuck.escape(unstuck.Problem(model, nn.MSELoss(), loader), seed=4) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_frozen_stays():
    model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        model[1].weight.zero_(), model[2].weight.zero_()
    model[0].requires_grad_(False)
    x = normal(32, 1)
    state = unstuck.escape(unstuck.Problem(model, nn.MSELoss(), list(zip(x.split(8), x.split(8), strict=True))))
    assert torch.equal(state["0.weight"], model[0].weight) and torch.equal(state["0.bias"], model[0].bias)
    assert not torch.equal(state["1.weight"], model[1].weight)


@pytest.mark.parametrize("seed", range(3))
def test_from_a_minimum_there_is_no_way_out(seed):
    x, y = normal(64, 3, seed=seed), normal(64, 2, seed=seed + 10)
    net = nn.Linear(3, 2, bias=False, dtype=F64)
    with torch.no_grad():
        net.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    problem = unstuck.Problem(net, nn.MSELoss(), list(zip(x.split(8), y.split(8), strict=True)))
    with pytest.raises(NotMeasurable, match="no way down was found by curvature"):
        unstuck.escape(problem, seed)
