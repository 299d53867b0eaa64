"""Every guard keeps its call finite, forwards and backwards, and leaves ordinary arguments about as they were."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from unstuck.probes.numbers import Origin, blame
from unstuck.problem import Problem
from unstuck.remedies.numbers import GUARDS, guard, scale_loss, use_float32
from unstuck.training import Training

SINGULAR = {
    "log": (lambda z: torch.log(z * 0), lambda z: torch.log(z)),
    "sqrt": (lambda z: torch.sqrt(z * 0), lambda z: torch.sqrt(z)),
    "exp": (lambda z: torch.exp(z * 1e3), lambda z: torch.exp(z)),
    "div": (lambda z: torch.div(z, z * 0), lambda z: torch.div(z, z + 1)),
    "acos": (lambda z: torch.acos(z * 0 + 1), lambda z: torch.acos(z / 9)),
    "pow": (lambda z: torch.pow(z * 0, 0.5), lambda z: torch.pow(z, 0.5)),
}


class Net(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.body, self.call = nn.Linear(4, 3), call

    def forward(self, x):
        return self.call(nn.functional.softplus(self.body(x)) + 0.1)


def problem(call):
    torch.manual_seed(0)
    model = Net(call)
    data = [(torch.randn(8, 4), torch.zeros(8)) for _ in range(4)]
    return Problem(
        model, lambda out, y: out.clamp(-1e30, 1e30).mean(), data, optimizer=torch.optim.SGD(model.parameters(), 0.1)
    )


def origin(name):
    return Origin((name, 0), name, "", "", False, 0.0, 0.0, 0)


@pytest.mark.parametrize("name", SINGULAR)
def test_singular_calls_stay_finite(name):
    sick = problem(SINGULAR[name][0])
    assert blame(sick, sick.twin(), sick.data[0], 0).key[0] == name
    cured = guard(origin(name)).apply(sick)
    assert blame(cured, cured.twin(), cured.data[0], 0) is None


@pytest.mark.parametrize("name", SINGULAR)
def test_ordinary_arguments_are_left_alone(name):
    plain = problem(SINGULAR[name][1])
    changed = guard(origin(name)).apply(plain)
    before, after = (p.value(p.twin(), p.data[0]).item() for p in (plain, changed))
    assert after == pytest.approx(before, rel=1e-3, abs=1e-5)


def test_both_logarithms_of_a_cross_entropy_are_guarded():
    """With the second alone left as it is, the loss of a sure and wrong prediction would be infinite."""
    sick = problem(lambda z: -(torch.log(torch.sigmoid(z * -1e4)) + torch.log(1 - torch.sigmoid(z * 1e4))))
    found = blame(sick, sick.twin(), sick.data[0], 0)
    assert found.key == ("log", 0)
    cured = guard(found).apply(sick)
    assert blame(cured, cured.twin(), cured.data[0], 0) is None


def test_a_softmax_by_hand_keeps_its_values():
    """exp(x − max) / Σ exp(x − max) is exp(x) / Σ exp(x), and finite where that is not."""
    plain = problem(lambda z: (lambda e: e / e.sum(-1, keepdim=True))(torch.exp(z * 50)))
    remedy = guard(replace(origin("exp"), summed=True))
    ordinary = problem(lambda z: (lambda e: e / e.sum(-1, keepdim=True))(torch.exp(z)))
    assert "maximum" in remedy.text
    for sick in (plain, ordinary):
        cured = remedy.apply(sick)
        expected = sick.value(sick.twin().double(), [t.double() for t in sick.data[0]])
        assert cured.value(cured.twin(), cured.data[0]).item() == pytest.approx(expected.item(), rel=1e-4)
    overflowing = problem(lambda z: torch.exp(z * 1e3).sum())
    found = blame(overflowing, overflowing.twin(), overflowing.data[0], 0)
    assert found.summed


def test_other_calls_have_no_guard():
    assert guard(origin("linear")) is None
    assert "linear" not in GUARDS


def test_float32():
    made = Problem(
        nn.Linear(3, 1).bfloat16(), nn.MSELoss(), [(torch.ones(4, 3).bfloat16(), torch.ones(4, 1).bfloat16())] * 4
    )
    assert use_float32(made).apply(made).model.weight.dtype == torch.float32
    assert made.model.weight.dtype == torch.bfloat16


def test_a_scaled_loss_trains_as_without_scale_in_float32():
    plain = problem(lambda z: z.square())
    scaled = scale_loss(plain).apply(plain)
    runs = [Training(p) for p in (plain, scaled)]
    for run in runs:
        run.advance(5)
    assert scaled.loop.loss_scale == 65536
    assert math.isfinite(runs[1].losses[-1])
    assert runs[1].losses == pytest.approx(runs[0].losses, rel=1e-6)
    assert replace(scaled, loop=plain.loop).loop.loss_scale == 1.0
