"""Remedies of the step: what each changes in the loop or the recipe, and what a training under it does."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unstuck.loop import Clip, Loop
from unstuck.problem import Problem
from unstuck.remedies.clipping import add_clipping, loosen_clipping, unscale_first
from unstuck.remedies.options import drop_weight_decay, usual_epsilon, usual_momentum
from unstuck.remedies.schedule import constant_schedule, shorter_warmup
from unstuck.training import Training


def problem(optimizer=None, **loop):
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    data = [(100 * torch.randn(8, 4), torch.randint(0, 2, (8,))) for _ in range(4)]
    make = optimizer or (lambda parameters: torch.optim.SGD(parameters, lr=1.0))
    case = Problem(model, nn.CrossEntropyLoss(), data, optimizer=make(model.parameters()))
    return replace(case, loop=replace(case.loop, **loop))


def moved(case, steps=1):
    run = Training(case)
    before = torch.cat([p.detach().flatten().clone() for p in run.model.parameters()])
    run.advance(steps)
    return float((torch.cat([p.detach().flatten() for p in run.model.parameters()]) - before).norm())


def test_add_clipping_bounds_the_step_by_rate_times_bound():
    case = problem()
    assert moved(case) > 5
    assert moved(add_clipping(case, 0.5).apply(case)) == pytest.approx(0.5, rel=1e-3)


def test_loosen_clipping_lets_the_gradient_through():
    tight = problem(clip=Clip("norm", 1e-3))
    assert moved(tight) == pytest.approx(1e-3, rel=1e-3)
    assert moved(loosen_clipping(tight, 1e6).apply(tight)) == pytest.approx(moved(problem()), rel=1e-6)


def test_unscale_first_makes_the_bound_one_on_the_true_gradient():
    case = problem(clip=Clip("norm", 1.0), clip_before_unscale=True, loss_scale=1024.0)
    assert moved(case) == pytest.approx(1 / 1024, rel=1e-3)
    assert moved(unscale_first(case).apply(case)) == pytest.approx(1.0, rel=1e-3)


def test_constant_schedule_keeps_the_peak():
    case = problem(schedule=(1.0, 0.0, 0.0))
    assert moved(case, 1) == moved(case, 3)
    assert constant_schedule(case).apply(case).loop.schedule == ()
    assert constant_schedule(problem(schedule=(1.0, 25.0, 0.1))).apply(case).loop.schedule == (25.0,)


def test_shorter_warmup_ends_after_a_tenth_of_the_steps():
    case = problem(schedule=tuple(i / 1e5 for i in range(100)), steps=100)
    course = shorter_warmup(case).apply(case).loop.schedule
    assert len(course) == 10
    assert course[-1] == 1.0
    assert "/ 10)" in shorter_warmup(case).code


def test_options_are_changed_in_every_group_and_only_where_they_exist():
    case = problem(lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.999, 0.9), eps=1.0, weight_decay=30.0))
    for remedy, key, value in (
        (drop_weight_decay, "weight_decay", 0.0),
        (usual_momentum, "betas", (0.9, 0.999)),
        (usual_epsilon, "eps", 1e-8),
    ):
        made = remedy(case)
        hyper = made.apply(case).optimizer.groups[0][0]
        assert hyper[key] == value
        assert "momentum" not in hyper
        assert f"{key}={value}" in made.code
    assert case.optimizer.groups[0][0]["weight_decay"] == 30.0


def test_a_remedy_leaves_the_problem_it_gets_as_it_was():
    case = problem(clip=Clip("norm", 1e-3))
    loosen_clipping(case, 1.0).apply(case)
    assert isinstance(case.loop, Loop)
    assert case.loop.clip == Clip("norm", 1e-3)
