"""Normalization changed: one thing each, on a copy, and the model still runs."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unstuck.problem import Problem
from unstuck.remedies.normalization import default_momentum, group_norm, unfreeze_batchnorm

X = torch.randn(32, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def problem(channels=8, momentum=0.001):
    model = nn.Sequential(
        nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels, momentum=momentum), nn.Flatten(), nn.LazyLinear(2)
    )
    model(X)
    made = Problem(model, nn.CrossEntropyLoss(), [(X[i::4], torch.arange(8) % 2) for i in range(4)])
    return replace(made, loop=replace(made.loop, training={"1": False}))


@pytest.mark.parametrize(("channels", "groups"), [(8, 2), (64, 8), (30, 6), (3, 1), (5, 1)])
def test_groups_divide_the_channels_and_hold_several(channels, groups):
    made = problem(channels)
    changed = group_norm(made).apply(made)
    norm = changed.model[1]
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups
    assert torch.isfinite(changed.value(changed.twin(), changed.data[0]))
    assert isinstance(made.model[1], nn.BatchNorm2d)


def test_group_norm_treats_each_sample_by_itself():
    made = problem()
    model = group_norm(made).apply(made).twin()
    assert torch.allclose(model[:2](X)[:1], model[:2](X[:1]), atol=1e-5)


def test_momentum():
    made = problem()
    assert default_momentum(made).apply(made).model[1].momentum == 0.1
    assert made.model[1].momentum == 0.001


def test_unfrozen():
    made = problem()
    assert not made.twin()[1].training
    assert unfreeze_batchnorm(made, ("1",)).apply(made).twin()[1].training
