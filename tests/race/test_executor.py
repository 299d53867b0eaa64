"""Whoever trains them, the lanes are the same; and it is said who does, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.race.test_stack import alone, problem, same, with_each
from torch import nn

from unstuck.problem import Problem
from unstuck.race.executor import Loops, Stacks, draws, fastest


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.lstm(x)[0][:, -1])


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x) * (1.0 if float(x.sum()) < 1e9 and float(self.layer.weight.sum()) < 1e9 else 0.0)


def still(case: Problem) -> Problem:
    """Without dropout."""
    return replace(case, loop=replace(case.loop, training=dict.fromkeys(case.loop.training, False)))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("together", [True, False])
def test_threads_change_nothing(threads: int, together: bool) -> None:
    lanes, before = with_each(still(problem())), torch.get_rng_state()
    heat = Stacks(lanes, 1, True, together, threads)
    heat.advance(10)
    heat.advance(20)
    for lane, run, curve in zip(lanes, heat.runs, heat.curves, strict=True):
        single = alone(lane, 1, 30)
        assert same(run, single) and curve == pytest.approx(single.losses, rel=1e-6)
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == 1


@pytest.mark.parametrize("make", [Loops, lambda *a: Stacks(*a, True, 2), lambda *a: Stacks(*a, False, 1)])
def test_lanes_that_are_kept_have_their_whole_curve(make) -> None:
    lanes = with_each(still(problem()))
    heat = make(lanes, 0, True)
    heat.advance(5)
    heat.keep([0, 4, 5])
    heat.advance(5)
    heat.keep([1, 2])
    heat.advance(5)
    for lane, run, curve in zip((4, 5), heat.runs, heat.curves, strict=True):
        single = alone(lanes[lane], 0, 15)
        assert same(run, single) and curve == pytest.approx(single.losses, rel=1e-6)


def test_the_fastest_is_chosen_and_the_reason_says_what_was_timed() -> None:
    lanes = [lane for lane in with_each(problem()) for _ in range(8)]
    heat, name, why = fastest(lanes)
    assert name == "stacked" and isinstance(heat, Stacks)
    assert why.startswith("stacked ") and "one by one" in why and "loops" in why and "µs a lane and step" in why
    assert all(run.steps == 0 for run in heat.runs) and all(not curve for curve in heat.curves)


@pytest.mark.parametrize("model", [Branching])
def test_a_model_that_vmap_refuses_goes_in_loops(model) -> None:
    torch.manual_seed(0)
    net = model()
    batch = (torch.randn(8, 6), torch.randint(0, 3, (8,)))
    case = Problem(net, nn.CrossEntropyLoss(), [batch] * 4, torch.optim.SGD(net.parameters(), lr=0.1))
    heat, name, why = fastest([case, replace(case, optimizer=case.optimizer.scaled(2.0))])
    assert name == "loops" and isinstance(heat, Loops) and "vmap refuses: RuntimeError" in why
    heat.advance(3)
    assert [len(curve) for curve in heat.curves] == [3, 3]


def test_an_lstm_is_trained_right_whoever_does() -> None:
    torch.manual_seed(0)
    net = Recurrent().double()
    x, y = torch.randn(32, 3, 4, dtype=torch.float64), torch.randint(0, 3, (32,))
    case = Problem(net, nn.CrossEntropyLoss(), list(zip(x.split(8), y.split(8), strict=True)),
                   torch.optim.SGD(net.parameters(), lr=0.1))  # fmt: skip
    lanes = [case, replace(case, optimizer=case.optimizer.scaled(3.0))]
    heat, _, why = fastest(lanes)
    heat.advance(20)
    assert why and all(same(run, alone(lane, 0, 20)) for run, lane in zip(heat.runs, lanes, strict=True))


def test_what_cannot_be_stacked_says_why() -> None:
    case = problem()
    assert fastest([case])[1:] == ("loops", "one lane alone")
    piling = replace(case, loop=replace(case.loop, accumulate=2))
    assert fastest([piling, piling])[1:] == ("loops", "gradients are accumulated")


def test_dropout_draws() -> None:
    assert draws(problem()) and not draws(still(problem())) and draws(problem("cnn"))
