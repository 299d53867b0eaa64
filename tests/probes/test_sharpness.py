"""Sharpness of a linear model: λmax of its Gram matrix, and a rise that is half the trace."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from unstuck.probes.sharpness import DRAWS, SHARE, measure
from unstuck.problem import Problem, state_of


def linear(size=32):
    """Squared error of a linear model without bias: H = 2 XᵀX / n."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 6, generator=generator) * torch.tensor([3.0, 2, 1, 1, 0.5, 0.1])
    model = nn.Linear(6, 1, bias=False)
    y = x @ model.weight.detach().T
    data = list(zip(x.split(size), y.split(size), strict=True))
    case = Problem(model, nn.MSELoss(), data[:1])
    return replace(case, data=tuple(data), held_out=(), last=state_of(model)), x


@pytest.mark.parametrize("size", [4, 32])
def test_a_linear_model_at_its_minimum(size):
    case, x = linear(size)
    gram = 2 * x.T @ x / len(x)
    found = measure(case)
    assert found.loss == pytest.approx(0.0, abs=1e-10)
    assert found.low <= float(torch.linalg.eigvalsh(gram)[-1]) <= found.high * (1 + 1e-5)
    assert found.steepest == pytest.approx(float(torch.linalg.eigvalsh(gram)[-1]), rel=0.05)
    # E over unit u of ½ ρ²‖θ‖² uᵀHu = ½ ρ²‖θ‖² tr H / n
    expected = 0.5 * SHARE**2 * float(case.model.weight.detach().square().sum()) * float(gram.trace()) / 6
    assert abs(found.rise - expected) < 4 * found.rise_error
    assert found.samples == 512
    assert DRAWS >= 10


def test_scaling_a_layer_and_the_next_one_back_leaves_the_rise():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(256, 5, generator=generator), torch.randint(0, 3, (256,), generator=generator)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16, bias=False), nn.ReLU(), nn.Linear(16, 3, bias=False))
    data = list(zip(x.split(64), y.split(64), strict=True))
    plain = measure(Problem(model, nn.CrossEntropyLoss(), data))
    with torch.no_grad():
        model[0].weight *= 10
        model[2].weight /= 10
    scaled = measure(Problem(model, nn.CrossEntropyLoss(), data))
    assert scaled.rise == pytest.approx(plain.rise, rel=1e-3)
    assert scaled.steepest > 10 * plain.steepest


def test_a_loss_without_a_hessian_still_has_its_rise():
    case, _ = linear()

    class Noisy(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.rand(1, generator=torch.Generator().manual_seed(torch.seed() % 1000))

    model = Noisy(6, 1)
    found = measure(Problem(model, nn.MSELoss(), list(case.data)))
    assert math.isnan(found.steepest)
    assert found.why
    assert math.isfinite(found.rise)


def test_the_problem_is_left_as_it_was():
    case, _ = linear()
    before, weight = torch.get_rng_state(), case.model.weight.detach().clone()
    measure(case)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(case.model.weight, weight)
