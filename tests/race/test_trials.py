"""A trial is the training alone, whoever trains it and whatever stands beside it; levels are means with their error."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.race.test_stack import alone, problem, with_each
from torch import nn

from unstuck.criterion import Score
from unstuck.problem import Problem
from unstuck.race.trials import Level, Outcome, level, seconds_a_step, trials

NO_SCORE = Score("accuracy", 0.0, 0.0, 1)


def agrees(outcome: Outcome, case: Problem, seed: int, steps: int) -> bool:
    single = alone(case, seed, steps)
    score = single.score(case.held_out)
    assert outcome.losses == pytest.approx(single.losses, rel=1e-6)  # float32
    assert (outcome.score.value, outcome.score.loss) == (pytest.approx(score.value), pytest.approx(score.loss))
    return outcome.diverged is single.diverged is False


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_a_trial_is_the_training_alone_with_each_seed(network: str) -> None:
    lanes = with_each(problem(network))
    before, state = torch.get_rng_state(), {n: t.clone() for n, t in lanes[0].model.state_dict().items()}
    found, executors = trials([(lane, 20) for lane in lanes], 3, lanes[0].held_out, mix=True)
    assert [len(runs) for runs in found] == [3] * len(lanes)
    assert all(agrees(runs[seed], lane, seed, 20) for lane, runs in zip(lanes, found, strict=True) for seed in range(3))
    assert len({runs.losses[0] for runs in found[0]}) == 3
    assert executors and all(said.startswith("6 trainings of 20 updates: ") for said in executors)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(state[name], value) for name, value in lanes[0].model.state_dict().items())


def test_seeds_that_do_not_mix_start_from_the_same_weights() -> None:
    case = problem()
    one_batch = replace(case, data=case.data[:1], model=nn.Sequential(nn.Linear(6, 3)).double())
    one_batch = replace(one_batch, optimizer=one_batch.optimizer.using(torch.optim.SGD, lr=0.1))
    same, _ = trials([(one_batch, 2)], 3, case.held_out)
    other, _ = trials([(one_batch, 2)], 3, case.held_out, mix=True)
    assert len({run.losses[0] for run in same[0]}) == 1 and len({run.losses[0] for run in other[0]}) == 3


def test_variants_of_other_lengths_and_forms_come_back_in_their_places() -> None:
    case = problem()
    lanes = with_each(case)[:4]
    wide = replace(case, model=nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)).double())
    variants = [(lanes[0], 10), (lanes[1], 25), (wide, 10), (lanes[2], 10), (lanes[3], 25), (wide, 25)]
    found, executors = trials(variants, 2, case.held_out, mix=True)
    for (lane, steps), runs in zip(variants, found, strict=True):
        assert all(len(run.losses) == steps and agrees(run, lane, seed, steps) for seed, run in enumerate(runs))
    assert sum(said.startswith("2 trainings of 10 updates") for said in executors) == 1
    assert sum(said.startswith("2 trainings of 25 updates") for said in executors) == 1
    assert sum(said.startswith("1 trainings") and "one lane alone" in said for said in executors) == 2


def test_variants_whose_loops_differ_are_no_stack() -> None:
    case = problem()
    piling = replace(case, loop=replace(case.loop, accumulate=3))
    variants = [(case, 12), (piling, 12), (replace(case, optimizer=case.optimizer.scaled(0.5)), 12), (piling, 12)]
    found, _ = trials(variants, 2, case.held_out)
    for (lane, _), runs in zip(variants, found, strict=True):
        assert agrees(runs[0], lane, 0, 12)


def test_one_that_diverges_leaves_the_others_alone() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 1).double()
    x = torch.randn(64, 6, dtype=torch.float64)
    y = x.sum(1, keepdim=True)
    case = Problem(model, nn.MSELoss(), list(zip(x.split(8), y.split(8), strict=True)),
                   torch.optim.SGD(model.parameters(), lr=0.01))  # fmt: skip
    lanes = [replace(case, optimizer=case.optimizer.scaled(factor)) for factor in (1, 1e12, 2)]
    found, _ = trials([(lane, 30) for lane in lanes], 2, case.held_out)
    for lane in (0, 2):
        assert all(agrees(run, lanes[lane], seed, 30) for seed, run in enumerate(found[lane]) if seed == 0)
        assert all(math.isfinite(run.end) and run.end < run.losses[0] for run in found[lane])
    assert all(run.diverged and run.end == math.inf for run in found[1])
    assert level([run.end for run in found[1]]) == Level(math.inf, 0.0, 2)


def test_the_end_is_the_mean_of_the_last_tenth() -> None:
    assert Outcome(tuple(map(float, range(100))), NO_SCORE, False).end == pytest.approx(94.5)
    assert Outcome((3.0, 2.0, 1.0), NO_SCORE, False).end == 1.0
    assert Outcome((1.0, math.nan), NO_SCORE, False).end == math.inf
    assert Outcome((1.0, 2.0), NO_SCORE, True).end == math.inf
    assert Outcome((), NO_SCORE, False).end == math.inf
    assert Outcome((1.7e308,) * 20, NO_SCORE, False).end == math.inf  # float64 on its way to inf


def test_a_level_is_the_mean_with_its_standard_error() -> None:
    for count in (2, 3, 7):
        values = np.random.default_rng(count).normal(5, 2, count)
        found = level(values.tolist())
        assert (found.mean, found.seeds) == (pytest.approx(values.mean()), count)
        assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(count))
    assert level([4.0]) == Level(4.0, 0.0, 1)
    assert level([1.0, math.inf, 2.0]) == level([1.7e308] * 3) == Level(math.inf, 0.0, 3)


def test_seconds_a_step_are_those_of_the_users_loop_and_leave_the_problem_alone() -> None:
    case, before = problem(), torch.get_rng_state()
    state = {n: t.clone() for n, t in case.model.state_dict().items()}

    def slow(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return nn.functional.cross_entropy(output, target)

    assert seconds_a_step(problem(loss=slow), 2) >= 0.02 and seconds_a_step(case) > 0
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(state[name], value) for name, value in case.model.state_dict().items())
