"""Where the training was left: sharpness, flat directions and the way out, against closed forms."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch
from tests.curvature.test_saddle import deep_linear, whitened
from tests.curvature.test_scan import normal
from tests.small import clouds, mlp, trained, written
from torch import nn

from unstuck.errors import NotApplicable
from unstuck.probes.curvature import FLATTER, measure, sharpness
from unstuck.problem import Problem

F64 = torch.float64


def regression(scales: list[float], optimizer, target: list[float] | None = None) -> Problem:
    """White inputs, scaled by column: the Hessian of the squared error is 2 diag(scales²), the weights are 0."""
    scale = torch.tensor(scales, dtype=F64)
    x = whitened(256, len(scales), batches=8) * scale
    y = x @ torch.tensor(target or [1.0] * len(scales), dtype=F64).unsqueeze(1)
    net = nn.Linear(len(scales), 1, bias=False, dtype=F64)
    nn.init.zeros_(net.weight)
    data = list(zip(x.split(32), y.split(32), strict=True))
    return Problem(net, nn.MSELoss(), data, optimizer=optimizer(net.parameters()))


def sgd(lr: float, **options):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **options)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sharpness_is_the_step_over_the_largest_stable_one(momentum):
    found = measure(regression([3.0, 1.0], sgd(0.02, momentum=momentum)))
    assert found.sharpness == pytest.approx(0.02 * 18 / (2 * (1 + momentum)))


def test_from_a_sharpness_of_one_plain_descent_diverges():
    for lr, shrinks in ((0.105, True), (0.115, False)):
        problem = regression([3.0, 1.0], sgd(lr))
        assert (sharpness(problem, 18.0) < 1) is shrinks
        weight = torch.tensor([1.0, 1.0], dtype=F64)
        for _ in range(50):
            weight = weight - lr * torch.tensor([18.0, 2.0], dtype=F64) * weight
        assert (float(weight.abs().max()) < 1) is shrinks


def test_the_learning_rate_is_the_last_one_of_the_schedule():
    problem = regression([3.0, 1.0], sgd(0.02))
    scheduled = replace(problem, loop=replace(problem.loop, schedule=(1.0, 0.5)))
    assert sharpness(scheduled, 18.0) == pytest.approx(0.5 * 0.02 * 18 / 2)


def test_an_optimizer_that_scales_its_steps_has_no_such_limit():
    assert math.isnan(measure(regression([3.0, 1.0], torch.optim.Adam)).sharpness)


def test_the_share_left_along_flat_directions():
    """gᵀH⁻¹g / 2 is Σ λᵢ wᵢ² / 2, w the way still to go: 18 · 1² / 2 along the steep one, 0.02 · 100² / 2 along the
    flat."""
    found = measure(regression([3.0, 0.1], sgd(0.02), target=[1.0, 100.0]))
    assert found.left == pytest.approx(9 + 100, rel=1e-6)
    assert found.flat_left == pytest.approx(100 / 109, rel=1e-6)
    steep = measure(regression([3.0, 1.0], sgd(0.02)))
    assert FLATTER > 18 / 2 and steep.flat_left == 0.0
    assert steep.left == pytest.approx(9 + 1, rel=1e-6)


def test_without_a_gradient_nothing_is_left():
    found = measure(regression([3.0, 1.0], sgd(0.02), target=[0.0, 0.0]))
    assert math.isnan(found.flat_left) and found.left == 0.0
    assert found.away is None


def test_a_saddle_has_a_way_out():
    values = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=F64)
    found = measure(deep_linear(4, 2, values, rows=64))
    assert found.point.verdict == "saddle" and found.away is not None
    assert found.away.after < 0.9 * found.away.loss == pytest.approx(0.9 * 5 / 4)


def test_a_healthy_training_has_none_to_speak_of():
    found = measure(trained(written(mlp(), *clouds(320)), 120))
    assert found.away is None or found.away.after < found.away.loss


def test_the_budget_is_kept_to():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(100, 100), nn.Tanh(), nn.Linear(100, 10))
    x, y = normal(2048, 100).float(), torch.arange(2048) % 10
    problem = trained(written(net, x, y, size=256), 8)
    began = time.process_time()
    measure(problem, 1.5)
    assert time.process_time() - began < 4


@pytest.mark.parametrize("missing", ["optimizer", "last"])
def test_without_steps_there_is_nothing_to_measure(missing):
    problem = regression([3.0, 1.0], sgd(0.02))
    with pytest.raises(NotApplicable, match="no steps were made"):
        measure(replace(problem, **{missing: None if missing == "optimizer" else {}}))
