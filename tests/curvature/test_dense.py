"""The whole Hessian against torch.autograd.functional.hessian."""

from __future__ import annotations

import pytest
import torch
from tests.curvature.reference import apart, blobs
from torch import nn
from torch.func import functional_call

from unstuck.curvature.dense import ROWS, dense
from unstuck.curvature.product import DIFFERENCES, Hessian
from unstuck.errors import BadArgument
from unstuck.problem import Problem

X, Y = blobs(20, 6)


def smooth() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Softplus(), nn.Linear(4, 3)).double()


def problem(model: nn.Module) -> Problem:
    x = X.double()
    return Problem(model, nn.CrossEntropyLoss(), list(zip(x.split(8), Y.split(8), strict=True)))


def by_autograd(model: nn.Module) -> torch.Tensor:
    """Over all rows at once, of one flat vector of parameters."""
    named = dict(model.named_parameters())
    sizes = [p.numel() for p in named.values()]

    def loss(theta: torch.Tensor) -> torch.Tensor:
        parts = [v.reshape(p.shape) for v, p in zip(theta.split(sizes), named.values(), strict=True)]
        output = functional_call(model, dict(zip(named, parts, strict=True)), (X.double(),))
        return nn.functional.cross_entropy(output, Y)

    theta = torch.cat([p.detach().reshape(-1) for p in named.values()])
    return torch.autograd.functional.hessian(loss, theta)


def test_it_is_what_autograd_gives():
    model = smooth()
    found = dense(Hessian(problem(model)))
    assert found.dtype == torch.float64
    assert apart(found, by_autograd(model)) < 1e-12
    assert torch.equal(found, found.T)


def test_in_float32_it_is_right_to_single_precision():
    model = smooth()
    single = Problem(smooth().float(), nn.CrossEntropyLoss(), list(zip(X.split(8), Y.split(8), strict=True)))
    found = dense(Hessian(single))
    assert found.dtype == torch.float64 and torch.equal(found, found.T)
    assert apart(found, by_autograd(model)) < 1e-5


def test_differences_give_it_too():
    model = smooth()
    assert apart(dense(Hessian(problem(model), way=DIFFERENCES, step=1e-5)), by_autograd(model)) < 1e-6


def test_more_rows_than_go_at_once():
    torch.manual_seed(2)
    x, y = torch.randn(30, 19).double(), torch.randn(30, 17).double()
    hessian = Hessian(Problem(nn.Linear(19, 17).double(), nn.MSELoss(), [(x, y)]))
    assert hessian.size == 340 > ROWS
    columns = torch.cat([x, torch.ones(30, 1)], 1).double()
    block = 2 * columns.T @ columns / 30 / 17
    expected = torch.linalg.eigvalsh(block).repeat_interleave(17)
    assert torch.allclose(torch.linalg.eigvalsh(dense(hessian)), expected, atol=1e-12)
    assert hessian.products == 340


def test_too_many_parameters_are_refused():
    with pytest.raises(BadArgument, match="dense: `hessian` has 74 parameters, more than `largest` = 73; use Lanczos"):
        dense(Hessian(problem(smooth())), largest=73)
    assert dense(Hessian(problem(smooth())), largest=74).shape == (74, 74)
