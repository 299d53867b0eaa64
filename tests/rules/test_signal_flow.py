"""Causes of signal flow on small problems: the sick one is named, its healthy look-alike is not."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unstuck.criterion import prepared
from unstuck.diagnose import PROBES, gather
from unstuck.loop import Clip
from unstuck.problem import Problem
from unstuck.rules import (
    bad_initialization_scale,
    dead_units,
    exploding_gradients,
    missing_nonlinearity,
    saturated_activations,
    symmetric_initialization,
    vanishing_gradients,
)
from unstuck.training import Training


def problem(model, x=None, classes=3, steps=0, lr=0.05):
    torch.manual_seed(1)
    x = torch.randn(256, 20) if x is None else x
    y = (x.flatten(1)[:, :classes] if x.is_floating_point() else x[:, :1] % classes).argmax(1)
    data = list(zip(x.split(32), y.split(32), strict=True))
    case = Problem(model, nn.CrossEntropyLoss(), data, optimizer=torch.optim.SGD(model.parameters(), lr=lr))
    case = prepared(case)
    if steps:
        run = Training(case)
        run.advance(steps)
        last = {n: t.detach().clone() for n, t in (*run.model.named_parameters(), *run.model.named_buffers())}
        case = replace(case, last=last)
    return case


def judged(module, case, monkeypatch):
    """What the rule makes of everything but the range of rates, which would be the dearest to measure."""
    monkeypatch.setattr("unstuck.diagnose.PROBES", tuple(p for p in PROBES if p[0] in NEEDED))
    evidence, missing = gather(case, case.loop, case.optimizer, float("inf"))
    assert not [m for m in missing if m.probe in module.RULE.needs], missing
    return module.RULE.judge(evidence)


NEEDED = {"level", "anatomy", "data", "objective", "activations", "gradients"}


def stack(depth, activation, width=32, scale=None):
    torch.manual_seed(0)
    layers = []
    for place in range(depth):
        layers += [nn.Linear(20 if place == 0 else width, width), activation()]
    model = nn.Sequential(*layers, nn.Linear(width, 3))
    for layer in model:
        if isinstance(layer, nn.Linear) and scale is not None:
            nn.init.normal_(layer.weight, std=scale * layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)
    return model


@pytest.mark.parametrize(
    ("module", "sick", "healthy"),
    [
        (vanishing_gradients, lambda: stack(10, nn.Sigmoid), lambda: stack(3, nn.Sigmoid)),
        (vanishing_gradients, lambda: stack(10, nn.Sigmoid), lambda: stack(10, nn.ReLU, scale=1.41)),
        (bad_initialization_scale, lambda: stack(5, nn.ReLU, scale=0.1), lambda: stack(5, nn.ReLU)),
        (bad_initialization_scale, lambda: stack(5, nn.ReLU, scale=8.0), lambda: stack(5, nn.ReLU, scale=1.41)),
        (saturated_activations, lambda: stack(3, nn.Tanh, scale=20.0), lambda: stack(3, nn.Tanh, scale=1.0)),
        (missing_nonlinearity, lambda: stack(3, nn.Identity), lambda: stack(3, nn.GELU)),
    ],
)
def test_sick_is_named_and_healthy_is_not(module, sick, healthy, monkeypatch):
    found = judged(module, problem(sick(), steps=5), monkeypatch)
    assert found is not None
    assert found.strength >= 0.7
    assert found.remedies
    assert len(found.evidence) in (2, 3, 4)
    assert judged(module, problem(healthy(), steps=5), monkeypatch) is None


@pytest.mark.parametrize("value", [0.0, 0.02, 0.5])
def test_equal_units_are_named_and_nothing_else(value, monkeypatch):
    model = stack(2, nn.Tanh)
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    case = problem(model, steps=5)
    assert judged(symmetric_initialization, case, monkeypatch).strength > 0.9
    for other in (vanishing_gradients, bad_initialization_scale, saturated_activations):
        assert judged(other, case, monkeypatch) is None


def test_a_zero_head_is_no_symmetry(monkeypatch):
    model = stack(2, nn.Tanh)
    nn.init.zeros_(model[-1].weight)
    nn.init.zeros_(model[-1].bias)
    for module in (symmetric_initialization, vanishing_gradients, bad_initialization_scale):
        assert judged(module, problem(model, steps=5), monkeypatch) is None


def test_residual_zero_branches_are_no_symmetry(monkeypatch):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(20, 20), nn.Linear(20, 20)
            nn.init.zeros_(self.down.weight)

        def forward(self, x):
            return x + self.down(torch.relu(self.up(x)))

    model = nn.Sequential(Residual(), Residual(), nn.Linear(20, 3))
    assert judged(symmetric_initialization, problem(model, steps=5), monkeypatch) is None


def test_units_born_dead_are_surer_than_killed_ones(monkeypatch):
    born, killed = stack(2, nn.ReLU), stack(2, nn.ReLU)
    nn.init.constant_(born[0].bias, -50.0)
    first = judged(dead_units, problem(born), monkeypatch)
    case = problem(killed)
    last = {**case.last, "0.bias": torch.full_like(case.last["0.bias"], -50.0)}
    second = judged(dead_units, replace(case, last=last), monkeypatch)
    assert first.strength > 0.9 > 0.7 > second.strength
    assert judged(dead_units, problem(stack(2, nn.ReLU)), monkeypatch) is None


class Reader(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.rnn = nn.RNN(4, 16, nonlinearity="relu", batch_first=True)
        self.head = nn.Linear(16, 3)
        nn.init.orthogonal_(self.rnn.weight_hh_l0).data.mul_(scale)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def test_recurrence_that_stretches_explodes_and_one_that_shrinks_vanishes(monkeypatch):
    x = torch.randn(256, 40, 4)
    wild, calm, faint = (problem(Reader(scale), x=x) for scale in (1.9, 1.41, 0.5))
    assert judged(exploding_gradients, wild, monkeypatch).strength > 0.9
    assert judged(exploding_gradients, calm, monkeypatch) is None
    assert judged(vanishing_gradients, faint, monkeypatch).remedies[0].id == "gated-recurrence"
    assert judged(vanishing_gradients, calm, monkeypatch) is None
    clipped = replace(wild, loop=replace(wild.loop, clip=Clip("norm", 1.0)))
    assert judged(exploding_gradients, clipped, monkeypatch) is None


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(20, 2), nn.Linear(2, 3)),  # a factored matrix
        nn.Sequential(nn.Linear(20, 3)),  # logistic regression
        nn.Sequential(nn.Linear(20, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3)),
        nn.Sequential(nn.Linear(20, 16), nn.Dropout(0.1), nn.ReLU(), nn.Linear(16, 3)),
    ],
)
def test_no_stack_is_seen_where_there_is_none(model, monkeypatch):
    assert judged(missing_nonlinearity, problem(model), monkeypatch) is None


def test_separable_convolutions_are_no_missing_nonlinearity(monkeypatch):
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 3),
    )  # fmt: skip
    assert judged(missing_nonlinearity, problem(model, x=torch.randn(64, 1, 8, 8)), monkeypatch) is None


def test_stacked_convolutions_are_named_through_pooling_and_dropout(monkeypatch):
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.AvgPool2d(2), nn.Dropout(0.1), nn.Conv2d(8, 16, 3), nn.Flatten(),
                          nn.Linear(16, 3))  # fmt: skip
    found = judged(missing_nonlinearity, problem(model, x=torch.randn(64, 1, 8, 8)), monkeypatch)
    assert found is not None
    assert found.evidence[0].value == 2


class Forgetful(nn.Module):
    def __init__(self, keeps):
        super().__init__()
        self.first, self.second, self.last, self.keeps = nn.Linear(20, 16), nn.Linear(16, 16), nn.Linear(16, 3), keeps

    def forward(self, x):
        for layer in (self.first, self.second):
            x = layer(x)
            found = nn.functional.relu(x)
            x = found if self.keeps else x
        return self.last(x)


def test_a_relu_whose_result_is_thrown_away_is_none(monkeypatch):
    found = judged(missing_nonlinearity, problem(Forgetful(False)), monkeypatch)
    assert (found.strength, found.evidence[0].value, found.evidence[1].value) == (0.95, 2, 1)
    assert judged(missing_nonlinearity, problem(Forgetful(True)), monkeypatch) is None
