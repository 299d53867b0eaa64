"""Form, range and scale of the objective against closed forms."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unstuck.criterion import prepared
from unstuck.errors import UnstuckError
from unstuck.loop import Loop
from unstuck.probes.objective import Objective, form_of, measure
from unstuck.problem import Problem

N, C = 12, 3
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(1))
CLASSES = torch.arange(N) % C
ONEHOT = F.one_hot(CLASSES, C).float()
VALUES = torch.randn(N, C, generator=torch.Generator().manual_seed(2))


def measured(loss, target=VALUES, model=None) -> Objective:
    problem = Problem(model or nn.Linear(4, C), loss, [(X, target)])
    return measure(prepared(problem))


def picked(o, t):
    return F.log_softmax(o, 1)[torch.arange(len(t)), t]


SCALES = [
    (1, VALUES, F.mse_loss),
    (N * C, VALUES, lambda o, t: F.mse_loss(o, t, reduction="sum")),
    (1, VALUES, lambda o, t: F.mse_loss(o, t, reduction="none").mean()),
    (-1, CLASSES, lambda o, t: -F.cross_entropy(o, t)),
    (1 / 500, CLASSES, lambda o, t: F.cross_entropy(o, t) / 500),
    (N, CLASSES, lambda o, t: F.cross_entropy(o, t, reduction="sum")),
    (1, CLASSES, lambda o, t: F.cross_entropy(o, t, weight=torch.tensor([1.0, 5.0, 9.0]))),
    (1, VALUES, lambda o, t: ((o - t) ** 2).mean()),
    (C, VALUES, lambda o, t: (t - o).square().sum(1).mean()),
    (1, VALUES, lambda o, t: (o - t).abs().mean()),
    (1, CLASSES, lambda o, t: -picked(o, t).mean()),
    (-1, CLASSES, lambda o, t: picked(o, t).mean()),
    (N, CLASSES, lambda o, t: -F.softmax(o, 1)[torch.arange(len(t)), t].log().sum()),
    (1, ONEHOT, lambda o, t: -(t * F.log_softmax(o, 1)).sum(1).mean()),
    (-1, ONEHOT, lambda o, t: (F.softmax(o, 1).log() * t).sum(1).mean()),
    (1, ONEHOT, lambda o, t: F.kl_div(F.log_softmax(o, 1), t * 0.8 + 0.2 / 3, reduction="batchmean")),
]


@pytest.mark.parametrize(("scale", "target", "loss"), SCALES)
def test_the_scale_is_the_factor_on_the_mean(scale, target, loss):
    assert measured(loss, target).scale == pytest.approx(scale, rel=1e-3)


def test_a_term_beside_the_criterion_is_no_part_of_it():
    found = measured(lambda o, t: F.mse_loss(o, t) + F.mse_loss(o, t).detach())
    assert found.scale == pytest.approx(1, rel=1e-4) and found.part == pytest.approx(0.5, rel=1e-4)


def test_a_loss_without_gradient_has_no_scale():
    assert math.isnan(measured(lambda o, t: F.mse_loss(o, t).detach()).scale)


RANGES = [
    (torch.sigmoid, 0, 1),
    (torch.tanh, -1, 1),
    (torch.relu, 0, math.inf),
    (lambda o: o, -math.inf, math.inf),
    (lambda o: 200 * torch.sigmoid(o) - 50, -50, 150),
    (lambda o: o.clamp(-2, 3), -2, 3),
    (lambda o: o.softmax(1), 0, 1),
]


@pytest.mark.parametrize(("activation", "low", "high"), RANGES)
def test_the_range_is_the_activations(activation, low, high):
    found = measured(lambda o, t: F.mse_loss(activation(o), t))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_what_is_out_of_reach_bounds_r2():
    """A ReLU's best fit of targets is their positive part: R² = 1 − mean(min(t, 0)²) / var(t)."""
    found = measured(lambda o, t: F.mse_loss(F.relu(o), t))
    expected = VALUES.clamp(max=0).square().mean() / VALUES.var(0, unbiased=False).mean()
    assert found.unreachable == pytest.approx(float(expected), rel=1e-5)
    assert measured(F.mse_loss).unreachable == 0


def test_a_gate_and_a_normalization_have_no_simple_range():
    gated = measured(lambda o, t: F.mse_loss(torch.sigmoid(o) * o.flip(1), t))
    normed = measured(F.mse_loss, model=nn.Sequential(nn.Linear(4, C), nn.LayerNorm(C)))
    assert math.isnan(gated.unreachable) and math.isnan(normed.unreachable)


def test_a_recurrent_state_lies_between_minus_one_and_one():
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.GRU(4, C, batch_first=True)

        def forward(self, x):
            return self.body(x[:, None])[0][:, -1]

    found = measured(F.mse_loss, 3 * VALUES, Last())
    assert (found.low, found.high) == (-1, 1) and found.unreachable > 0.3


@pytest.mark.parametrize(
    ("values", "form", "axis"),
    [
        (VALUES.softmax(1), "probabilities", 1),
        (VALUES.log_softmax(1), "log-probabilities", 1),
        (VALUES.softmax(0), "probabilities", 0),
        (VALUES, "values", None),
        (VALUES * torch.nan, "values", None),
        (torch.ones(N, 1), "values", None),
    ],
)
def test_the_form_is_read_off_the_sums(values, form, axis):
    assert form_of(values, 1) == (form, axis)


def test_squared_error_on_a_softmax_sends_back_less_than_cross_entropy():
    """‖∂L/∂z‖ for L = mean((p − t)²) by the softmax's Jacobian, p(δ − p)."""
    found = measured(lambda o, t: F.mse_loss(o.softmax(1), t), ONEHOT)
    assert found.ending is not None and found.ending.name == "softmax"
    p = found.ending.output.detach()
    outward = 2 * (p - ONEHOT) / p.numel()
    inward = p * (outward - (outward * p).sum(1, keepdim=True))
    expected = inward.norm() / ((p - ONEHOT).norm() / N)
    assert found.gradient_share == pytest.approx(float(expected), rel=1e-4)


def test_an_unknown_criterion_is_said():
    problem = Problem(nn.Linear(4, 1), lambda o, t: o.exp().mean(), [(X, CLASSES)], None)
    with pytest.raises(UnstuckError, match="unknown"):
        measure(problem)
    found = replace(problem, criterion=replace(problem.criterion, key=("mse_loss", 7)), loop=Loop())
    with pytest.raises(UnstuckError, match="not seen again"):
        measure(found)


STEPS = F.one_hot(torch.stack([CLASSES, CLASSES, CLASSES.roll(1)], 1), C).float()


def steps(o):
    return o.view(N, 3, C)


@pytest.mark.parametrize(
    ("loss", "target", "classes"),
    [
        (lambda o, t: F.mse_loss(steps(o).softmax(-1), t), STEPS, 2),
        (lambda o, t: (t - steps(o).softmax(-1)).square().mean(), STEPS, 2),
        (lambda o, t: F.mse_loss(steps(o).softmax(1), t), STEPS.mT, 1),
    ],
)
def test_one_hot_steps_have_their_classes_where_the_softmax_runs(loss, target, classes):
    found = measured(loss, target, nn.Linear(4, 3 * C))
    assert (found.form, found.axis, found.classes) == ("probabilities", classes, classes)
    p = found.ending.output.detach()
    outward = 2 * (p - target) / p.numel()
    inward = p * (outward - (outward * p).sum(classes, keepdim=True))
    expected = inward.norm() / ((p - target).norm() / (3 * N))  # the mean of cross-entropy runs over steps
    assert found.gradient_share == pytest.approx(float(expected), rel=1e-4)


def test_a_softmax_over_the_steps_is_seen_beside_the_classes():
    found = measured(lambda o, t: F.mse_loss(steps(o).softmax(1), t), STEPS, nn.Linear(4, 3 * C))
    assert (found.form, found.axis, found.classes) == ("probabilities", 1, 2)
