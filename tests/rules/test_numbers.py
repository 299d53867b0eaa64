"""Rules of section 10 and not-shuffled, on made-up records and on small trainings."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from unstuck.evidence import Evidence
from unstuck.probes import numbers
from unstuck.probes.numbers import Numbers, Origin
from unstuck.probes.order import Order
from unstuck.problem import Criterion, Problem
from unstuck.rules import no_optimizer_step, nonfinite_loss, not_shuffled, precision_loss
from unstuck.training import Training


def problem(task="classes", **facts):
    model = nn.Linear(3, 2)
    made = Problem(model, nn.CrossEntropyLoss(), [(torch.randn(8, 3), torch.zeros(8, dtype=torch.long))] * 2,
                   optimizer=torch.optim.SGD(model.parameters(), 0.1))  # fmt: skip
    loop = replace(made.loop, steps=50, backwards=50, loss_site="/a/train.py:9", **facts)
    return replace(made, loop=loop, criterion=Criterion("cross_entropy", task))


def judged(rule, made, **records):
    return rule.RULE.judge(Evidence(made.loop, made, made.optimizer, **records))


def broken(name="log", low=0.0, high=1.0, backward=False, **options):
    origin = Origin((name, 0), "train.py:7", "/a/train.py:7", "", backward, low, high, 0)
    return Numbers(**{"broken": True, "inputs_finite": True, "origin": origin, "halved": 0.0, "flushed": 0.0,
                      "stalled": 0.0, "dtype": "", **options})  # fmt: skip


def test_a_singular_call_is_a_fault_with_an_epsilon():
    found = judged(nonfinite_loss, problem(losses=(0.7, 0.2, math.nan)), numbers=broken())
    assert found.fault
    assert found.where == "train.py:7"
    assert "log" in found.summary
    assert found.remedies[0].id == "add-epsilon"
    assert {f.name: f.value for f in found.evidence}["first step with a loss that is not finite"] == 2


def test_a_backward_pass_is_named():
    found = judged(nonfinite_loss, problem(losses=(0.7, math.nan)), numbers=broken("sqrt", backward=True))
    assert "backward pass of sqrt" in found.summary


@pytest.mark.parametrize(
    ("made", "record"),
    [
        (problem(losses=(0.7, 9e5, math.nan)), broken()),
        (problem(losses=(0.7, math.nan)), broken("exp", 0.0, 1e12)),
        (problem(losses=(0.7, math.nan)), broken("linear")),
        (problem(losses=(0.7, math.nan)), broken(origin=None)),
    ],
)
def test_a_loss_that_ran_away_is_a_matter_of_the_step(made, record):
    found = judged(nonfinite_loss, made, numbers=record)
    assert not found.fault
    assert found.remedies[0].id == "change-learning-rate"
    assert found.strength < 0.7


@pytest.mark.parametrize("options", [{"broken": False}, {"inputs_finite": False}])
def test_silent_where_all_is_finite_or_the_data_is_not(options):
    assert judged(nonfinite_loss, problem(), numbers=broken(**options)) is None


def test_the_epsilon_cures_a_real_training():
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.b(torch.sqrt(torch.relu(self.a(x))))

    model = Net()
    data = [(torch.randn(16, 3), torch.arange(16) % 2) for _ in range(4)]
    made = Problem(model, nn.CrossEntropyLoss(), data, optimizer=torch.optim.SGD(model.parameters(), 0.1))
    made = replace(made, loop=replace(made.loop, losses=(0.7, math.nan), backwards=20))
    record = numbers.measure(made)
    found = judged(nonfinite_loss, made, numbers=record)
    assert found.fault
    cured = found.remedies[0].apply(made)
    assert numbers.blame(cured, cured.twin(), cured.data[0], 0) is None


def half(**options):
    return broken(**{"broken": False, "origin": None, "halved": 1.0, "dtype": "bfloat16", **options})


def test_lost_gradients_and_lost_steps():
    assert judged(precision_loss, problem(), numbers=half(stalled=0.9)).remedies[0].id == "float32"
    scaled = judged(precision_loss, problem(), numbers=half(flushed=0.8, halved=0.0, dtype="float16"))
    assert [r.id for r in scaled.remedies] == ["scale-loss", "float32"]
    assert scaled.fault


@pytest.mark.parametrize(
    "options", [{}, {"flushed": 0.02, "stalled": 0.2}, {"dtype": "", "stalled": 1.0}, {"broken": True}]
)
def test_half_precision_that_keeps_up_is_sound(options):
    assert judged(precision_loss, problem(), numbers=half(**options)) is None


def order(between, chance=0.03, largest=0.04):
    return Order(32, 1024, between, chance, largest, True)


@pytest.mark.parametrize(
    ("between", "task", "fault"), [(0.99, "classes", True), (0.99, "regression", False), (0.4, "classes", False)]
)
def test_ordered_batches(between, task, fault):
    found = judged(not_shuffled, problem(task), order=order(between))
    assert found.fault == fault
    assert found.remedies[0].id == "shuffle"
    assert found.where == "train.py:9"


@pytest.mark.parametrize("record", [order(0.03), order(0.05), order(0.12), order(0.3, 0.28, 0.35)])
def test_mixed_batches(record):
    assert judged(not_shuffled, problem(), order=record) is None


def overflown(**options):
    return half(**{"halved": 0.0, "dtype": "float16", "overflown": True, **options})


def test_a_scaler_that_backs_off_is_named_and_the_missing_step_is_not():
    made = problem(loss_scale=2.0**40)
    loop = replace(made.loop, steps=0, stepping=False)
    made = replace(made, loop=loop)
    found = judged(precision_loss, made, numbers=overflown())
    assert found.fault and found.strength > 0.95
    assert [r.id for r in found.remedies] == ["scale-loss", "float32"]
    assert [f.value for f in found.evidence] == [2.0**40, 50, 0]
    assert judged(no_optimizer_step, made, numbers=overflown()) is None
    assert judged(no_optimizer_step, made, numbers=overflown(overflown=False)).cause == "no-optimizer-step"
    assert judged(no_optimizer_step, made).cause == "no-optimizer-step"


@pytest.mark.parametrize("steps", [25, 40, 50])
def test_a_scaler_that_soon_steps_is_sound(steps):
    made = problem(loss_scale=2.0**40)
    made = replace(made, loop=replace(made.loop, steps=steps))
    assert judged(precision_loss, made, numbers=overflown()) is None


def test_a_scaler_that_soon_steps_is_sound_under_accumulation():
    made = problem(loss_scale=65536.0, accumulate=4)
    made = replace(made, loop=replace(made.loop, steps=12))
    assert judged(precision_loss, made, numbers=overflown()) is None


@pytest.mark.parametrize(
    "id",
    [
        "scale-loss",
        "float32",
    ],
)
def test_with_gradients_that_are_finite_the_copy_steps(id):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    data = [(torch.randn(16, 3), torch.arange(16) % 2) for _ in range(4)]
    made = Problem(model, nn.CrossEntropyLoss(), data, optimizer=torch.optim.SGD(model.parameters(), 0.1))
    facts = {"loss_scale": 2.0**40, "autocast": ("cpu", torch.float16), "stepping": False, "backwards": 20}
    made = replace(made, loop=replace(made.loop, losses=(0.7,) * 20, **facts))
    found = judged(precision_loss, made, numbers=numbers.measure(made))
    remedy = {remedy.id: remedy for remedy in found.remedies}[id]
    for case, steps in ((made, False), (remedy.apply(made), True)):
        run = Training(case)
        run.advance(5)
        assert torch.equal(run.model[0].weight, made.model[0].weight) != steps
        assert bool(run.model[0].weight.isfinite().all())
