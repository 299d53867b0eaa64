"""A training of a problem is the user's loop, on a copy."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unstuck.loop import Clip
from unstuck.problem import Problem
from unstuck.training import Training, exchangeable, mix_entries

X, Y = torch.randn(64, 4), torch.randint(0, 3, (64,))


def problem(**options):
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Problem(model, nn.CrossEntropyLoss(), [(X, Y)], optimizer=optimizer, **options)


def by_hand(start, steps, lr=lambda step: 0.1, clip=None, clear=True, keep=(), accumulate=1):
    model = start.twin()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        for _ in range(accumulate):
            F.cross_entropy(model(X), Y).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.param_groups[0]["lr"] = lr(step)
        optimizer.step()
        for name, parameter in model.named_parameters() if clear else ():
            parameter.grad = parameter.grad if name in keep else None
    return model


@pytest.mark.parametrize(
    ("facts", "hand"),
    [
        ({}, {}),
        ({"clip": Clip("norm", 0.05)}, {"clip": 0.05}),
        ({"schedule": (1.0, 0.5, 0.25)}, {"lr": lambda step: 0.1 * (1.0, 0.5, 0.25)[min(step, 2)]}),
        ({"uncleared": 1.0}, {"clear": False}),
        ({"uncleared": 1.0, "kept": ("0.weight",)}, {"keep": ("0.weight",)}),
        ({"uncleared": 1.0, "kept": ("2.weight", "2.bias")}, {"keep": ("2.weight", "2.bias")}),
        ({"accumulate": 3}, {"accumulate": 3}),
    ],
)
def test_it_equals_the_loop_written_by_hand(facts, hand):
    start = problem()
    start = replace(start, loop=replace(start.loop, **facts))
    run = Training(start)
    run.advance(6)
    for ours, theirs in zip(run.model.parameters(), by_hand(start, 6, **hand).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_loop_that_never_steps_leaves_the_parameters():
    start = problem()
    run = Training(replace(start, loop=replace(start.loop, stepping=False)))
    run.advance(4)
    assert torch.equal(run.model[0].weight, start.model[0].weight)


def test_it_stops_where_the_loss_is_not_finite():
    start = problem()
    run = Training(replace(start, optimizer=start.optimizer.scaled(1e39)))
    run.advance(20)
    assert run.diverged
    assert run.steps < 20


def test_seeds_repeat_and_differ():
    def losses(seed):
        run = Training(problem(), seed)
        run.advance(3)
        return run.losses

    torch.manual_seed(1)
    first = losses(1)
    torch.manual_seed(1)
    assert losses(1) == first
    torch.manual_seed(1)
    assert losses(2) != first


def test_mixing_keeps_every_entry_and_the_biases():
    model = nn.Linear(6, 5)
    before, bias = model.weight.detach().clone(), model.bias.detach().clone()
    mix_entries(model, 1)
    assert torch.equal(before.flatten().sort().values, model.weight.flatten().sort().values)
    assert not torch.equal(before, model.weight)
    assert torch.equal(bias, model.bias)


def test_a_fresh_network_is_exchangeable_and_a_trained_one_is_not():
    fresh = problem()
    labels = (X[:, 0] > 0).long()
    trained = replace(fresh, data=((X, labels),))
    run = Training(trained)
    run.advance(200)
    assert exchangeable(fresh)
    assert not exchangeable(replace(trained, model=run.model))


def test_scoring_leaves_modes_and_buffers():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    start = Problem(model, nn.CrossEntropyLoss(), [(X, Y)], optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    run = Training(start)
    run.advance(1)
    mean = run.model[0].running_mean.clone()
    run.score(start.data)
    assert run.model[0].training
    assert torch.equal(mean, run.model[0].running_mean)
