"""The noise probe where the noise is known; rows are cut, batches that cannot be are taken as they are."""

import math
from dataclasses import replace

import pytest
import torch
from tests.small import clouds, mlp, trained, written
from torch import nn

from unstuck.errors import NotMeasurable
from unstuck.linalg.noise_scale import of_gradients
from unstuck.probes import noise
from unstuck.probes.noise import measure
from unstuck.problem import Problem


def linear(seed=0, samples=2048, columns=20, sigma=1.0):
    """Squared error of a linear model at distance 1 from the truth, inputs N(0, 1): the scale is 21 + 20 σ²."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, columns, generator=generator)
    y = x.sum(1) / math.sqrt(columns) + sigma * torch.randn(samples, generator=generator)
    model = nn.Linear(columns, 1, bias=False)
    nn.init.zeros_(model.weight)
    case = Problem(model, nn.MSELoss(), list(zip(x.split(32), y[:, None].split(32), strict=True)))
    return replace(case, data=(*case.data, *case.held_out), held_out=())


def test_a_linear_model_has_the_scale_that_is_known():
    found = measure(linear())
    scale = found.points[0].scale
    assert scale.low <= 41 <= scale.high
    assert scale.high < 2 * scale.low
    assert (found.batch, len(found.points), found.points[0].gradients) == (32, 1, 48)


def test_large_networks_make_each_gradient_twice_and_find_the_same(monkeypatch):
    held = measure(linear())
    monkeypatch.setattr(noise, "HELD", 0)
    again = measure(linear())
    assert again.points[0].scale == pytest.approx(held.points[0].scale, rel=1e-5)


def test_along_a_training_the_noise_scale_grows():
    x, y = clouds(1600)
    case = trained(written(mlp(), x, y), 120)
    found = measure(case, budget_s=20.0)
    steps = [point.step for point in found.points]
    assert steps[0] == 0
    assert steps[-1] == 120
    assert len(steps) == 4
    assert found.points[-1].scale.low > 3 * found.points[0].scale.high
    assert found.points[0].scale.value < found.typical.value <= found.points[-1].scale.value


def test_no_time_leaves_start_and_end_with_the_fewest_gradients():
    x, y = clouds(1600)
    found = measure(trained(written(mlp(), x, y), 40), budget_s=0.0)
    assert [point.step for point in found.points] == [0, 40]
    assert all(point.gradients >= 4 for point in found.points)


def test_accumulated_batches_count_as_one():
    case = linear()
    assert measure(replace(case, loop=replace(case.loop, accumulate=4))).batch == 128


def test_a_full_batch_is_cut():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(600, 8, generator=generator), torch.randn(600, 1, generator=generator)
    found = measure(Problem(nn.Linear(8, 1), nn.MSELoss(), [(x, y)] * 30))
    assert found.batch == 600
    assert found.points[0].size == 600 // 48


def test_batches_that_cannot_be_cut_are_taken_as_they_are():
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(16, n, generator=generator), torch.tensor(1.0)) for n in (3, 5, 7, 3, 9, 11, 2, 4)]

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * (x.mean() + 1)

    case = Problem(Mean(), lambda output, target: (output - target).square().mean(), data)
    case = replace(case, data=(*case.data, *case.held_out))
    found = measure(case)
    gradients = [2 * (x.mean() + 1) * (x.mean() + 1 - 1) for x, _ in case.data]
    expected = of_gradients([g.reshape(1) for g in gradients], 16)
    assert found.points[0].estimate.signal == pytest.approx(expected.signal, rel=1e-5)


def test_batch_normalization_keeps_batches_of_some_size():
    x, y = clouds(320)
    model = nn.Sequential(nn.Linear(24, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    assert measure(written(model, x, y)).points[0].size == 16


def test_too_few_batches_are_said():
    x = torch.randn(3, 4)
    with pytest.raises(NotMeasurable, match="needs 4 batches that share no sample, 0 are at hand"):
        measure(Problem(nn.Linear(4, 1), nn.MSELoss(), [(x, x[:, :1])]))


def test_a_gradient_that_is_not_finite_is_said():
    case = linear()
    bad = tuple((x * math.inf, y) for x, y in case.data)
    with pytest.raises(NotMeasurable, match="no gradient along the training is finite"):
        measure(replace(case, data=bad))


def test_the_problem_is_left_as_it_was():
    case = linear()
    before, state = torch.get_rng_state(), {n: p.clone() for n, p in case.model.named_parameters()}
    measure(case)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(p, state[n]) for n, p in case.model.named_parameters())
