"""The range of rates on a quadratic, whose stable rates are known; Adam beside it; what is left out."""

import math
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from unstuck.errors import NotMeasurable, UnstuckError
from unstuck.probes.rates import FACTORS, measure
from unstuck.problem import Problem


class Bowl(nn.Module):
    """Half the squared length of w, scaled: gradient descent is stable up to lr = 2 / scale."""

    def __init__(self, scale):
        super().__init__()
        self.w = nn.Parameter(torch.ones(4, 4))
        self.scale = scale

    def forward(self, x):
        return self.scale * 0.5 * self.w.square().sum() + 0 * x.sum()


def bowl(lr, scale=1.0, make=torch.optim.SGD):
    model = Bowl(scale)
    data = [(torch.zeros(2, 1), torch.zeros(2)) for _ in range(4)]
    optimizer = make(model.parameters(), lr=lr)
    return Problem(model, lambda output, target: output + 0 * target.sum(), data, optimizer=optimizer)


def test_stable_rates_end_at_two_over_the_curvature():
    found = measure(bowl(0.1, scale=10.0))
    assert found.rates[0] == pytest.approx(1e-4)
    assert found.best == pytest.approx(0.1)
    assert found.at(0.1) < 1e-8 < found.at(0.01)
    assert found.stable == pytest.approx(0.1)
    assert len(found.rates) < len(FACTORS)  # two rates that diverge are enough


def test_a_rate_far_too_small_is_followed_upwards():
    found = measure(bowl(1e-6))
    assert found.best == pytest.approx(1.0)
    assert found.present == 1e-6
    assert found.suggested == (found.best, found.best / 3)


def test_norms_at_the_present_rate_shrink_by_its_factor():
    norms = measure(bowl(0.1)).norms
    assert norms[1] / norms[0] == pytest.approx(0.9, rel=1e-5)


def test_adam_is_tried_beside_plain_descent_only():
    assert [rate for rate, _ in measure(bowl(0.1)).adam] == [1e-3, 3e-3, 1e-2]
    assert measure(bowl(0.1, make=torch.optim.Adam)).adam == ()


def test_a_rate_of_zero_is_measured_around_a_usual_one():
    found = measure(bowl(0.0))
    assert found.present == 0
    assert any(math.isclose(rate, 1e-3) for rate in found.rates)


def test_without_an_optimizer_it_is_refused():
    case = bowl(0.1)
    with pytest.raises(UnstuckError, match="no optimizer"):
        measure(replace(case, optimizer=None))


def test_updates_that_take_too_long_for_so_many_rates_are_said():
    class Slow(Bowl):
        def forward(self, x):
            time.sleep(0.01)
            return super().forward(x)

    case = bowl(0.1)
    slow = replace(case, model=Slow(1.0))
    with pytest.raises(NotMeasurable, match=r"an update takes .* s: 11 rates cannot be tried in 0 s"):
        measure(slow, budget_s=0.1)
