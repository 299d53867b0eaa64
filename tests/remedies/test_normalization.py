"""Normalization changed: one thing each, on a copy; and each line of code, put into the network, trains the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from unstuck.errors import UnstuckError
from unstuck.problem import Problem, resumed
from unstuck.remedies.insert_normalization import insert_batch_norm, insert_layer_norm, normalizing, places
from unstuck.remedies.normalization import (
    averaged,
    exact_statistics,
    frozen_statistics,
    group_norm,
    layer_norm,
    other_momentum,
    unfreeze_batchnorm,
)
from unstuck.training import Training

X = torch.randn(32, 3, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(32) % 2


def problem(channels=8, momentum=0.001):
    model = nn.Sequential(
        nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels, momentum=momentum), nn.Flatten(), nn.LazyLinear(2)
    )
    model(X)
    made = Problem(model, nn.CrossEntropyLoss(), [(X[i::4], torch.arange(8) % 2) for i in range(4)])
    return replace(made, loop=replace(made.loop, training={"1": False}))


def network(norm="nn.BatchNorm2d(8)", behind_conv="", behind_linear=""):
    """A patient's source, with what a remedy puts into it."""
    torch.manual_seed(0)
    source = (
        f"nn.Sequential(nn.Conv2d(3, 8, 3), {behind_conv}{norm}{', ' if norm else ''}nn.ReLU(), nn.Flatten(), "
        f"nn.Linear(128, 12), {behind_linear}nn.Tanh(), nn.Linear(12, 2))"
    )
    return eval(source, {"nn": nn})


def written(model, **fields):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return replace(Problem(model, nn.CrossEntropyLoss(), list(zip(X.split(4), Y.split(4), strict=True)),
                           optimizer=optimizer), **fields)  # fmt: skip


def losses(case, steps=12):
    run = Training(case)
    run.advance(steps)
    return [*run.losses, run.score(case.held_out).loss]


@pytest.mark.parametrize(("channels", "groups"), [(8, 2), (64, 8), (30, 6), (3, 1), (5, 1)])
def test_groups_divide_the_channels_and_hold_several(channels, groups):
    made = problem(channels)
    changed = group_norm(made).apply(made)
    norm = changed.model[1]
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups
    assert f"nn.GroupNorm({groups}, " in group_norm(made).code
    assert torch.isfinite(changed.value(changed.twin(), changed.data[0]))
    assert isinstance(made.model[1], nn.BatchNorm2d)


def test_group_norm_treats_each_sample_by_itself():
    made = problem()
    for remedy in (group_norm(made), layer_norm(made)):
        model = remedy.apply(made).twin()
        assert torch.allclose(model[:2](X)[:1], model[:2](X[:1]), atol=1e-5)


def test_momentum():
    made = problem()
    assert other_momentum(0.1).apply(made).model[1].momentum == 0.1
    assert made.model[1].momentum == 0.001


def test_unfrozen():
    made = problem()
    assert not made.twin()[1].training
    assert unfreeze_batchnorm(made, ("1",)).apply(made).twin()[1].training


@pytest.mark.parametrize(
    ("remedy", "line"),
    [
        (group_norm(problem()), "nn.GroupNorm(2, 8)"),
        (layer_norm(problem()), "nn.GroupNorm(1, 8)"),
        (other_momentum(0.4), "nn.BatchNorm2d(8, momentum=0.4)"),
    ],
)
def test_the_line_in_the_source_trains_as_the_remedy_does(remedy, line):
    assert line.split("8")[0].rstrip(", ") in remedy.code
    ours, theirs = losses(remedy.apply(written(network()))), losses(written(network(line)))
    assert ours == pytest.approx(theirs) and ours != losses(written(network()))


@pytest.mark.parametrize(
    ("made", "conv", "linear"),
    [
        (insert_batch_norm, "nn.BatchNorm2d(8), ", "nn.BatchNorm1d(12), "),
        (insert_layer_norm, "nn.GroupNorm(1, 8), ", "nn.LayerNorm(12), "),
    ],
)
def test_what_is_inserted_trains_as_the_same_layers_in_the_source(made, conv, linear):
    case = written(network(""))
    remedy = made(case)
    assert linear.split("(")[0] in remedy.code and conv.split("(")[0].removeprefix("nn.") in remedy.code
    changed = remedy.apply(case)
    assert losses(changed) == pytest.approx(losses(written(network("", conv, linear))), rel=1e-4)
    assert losses(changed) != losses(case)
    assert set(dict(case.model.named_parameters())) < set(dict(changed.model.named_parameters()))
    assert not hasattr(case.model[0], "normalized")


def test_new_parameters_stand_in_the_group_of_the_layer_they_follow():
    case = written(network(""))
    (options, names), = case.optimizer.groups
    groups = (({**options, "lr": 0.1}, names[:2]), (options, names[2:]))
    changed = insert_batch_norm(case).apply(replace(case, optimizer=replace(case.optimizer, groups=groups)))
    first, second = (names for _, names in changed.optimizer.groups)
    assert [n for n in first if "normalized" in n] == ["0.normalized.weight", "0.normalized.bias"]
    assert [n for n in second if "normalized" in n] == ["3.normalized.weight", "3.normalized.bias"]
    assert insert_batch_norm(case).apply(replace(case, optimizer=None)).optimizer is None


def test_normalization_goes_before_activations_of_hidden_layers_only():
    case = written(network(""))
    assert list(places(case)) == ["0", "3"] and normalizing(case) == ()
    assert normalizing(written(network())) == ("batch_norm",)
    linear = Problem(nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.Linear(4, 2)), nn.CrossEntropyLoss(), case.data)
    for remedy in (insert_batch_norm(linear), insert_layer_norm(linear)):
        with pytest.raises(UnstuckError, match="nowhere to put a normalization"):
            remedy.apply(linear)


def test_over_sequences_layer_norm_has_a_place_and_batch_norm_none():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Flatten(), nn.Linear(90, 2))
    case = Problem(model, nn.CrossEntropyLoss(), [(X.flatten(1, 2)[i::4], Y[i::4]) for i in range(4)])
    assert insert_layer_norm(case).apply(case).model[0].normalized.normalized_shape == (5,)
    with pytest.raises(UnstuckError, match="nowhere to put a normalization"):
        insert_batch_norm(case).apply(case)


def test_layer_norm_of_vectors_is_torch_s():
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 12), nn.BatchNorm1d(12), nn.Linear(12, 2))
    case = written(model)
    norm = layer_norm(case).apply(case).model[2]
    x = torch.randn(7, 12)
    assert torch.allclose(norm(x), nn.LayerNorm(12)(x), atol=1e-6)


def left(case, steps=20):
    """The problem with the state after some steps as its last."""
    run = Training(case)
    run.advance(steps)
    return replace(case, last={**dict(run.model.named_parameters()), **dict(run.model.named_buffers())})


def test_exact_statistics_are_those_of_update_bn():
    case = left(written(network("nn.BatchNorm2d(8, momentum=0.01)")))
    ours, theirs = exact_statistics(case).apply(resumed(case)).model, case.twin(last=True)
    torch.optim.swa_utils.update_bn([x for x, _ in case.data], theirs)
    assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))
    assert ours[1].momentum == 0.01 and exact_statistics(case).against == "as left"


def test_exact_statistics_are_means_over_the_data():
    case = problem()
    whole = replace(case, data=((torch.cat([x for x, _ in case.data]), torch.cat([y for _, y in case.data])),))
    seen = case.model[0](whole.data[0][0]).transpose(0, 1).flatten(1)
    norm = averaged(whole, whole.twin())[1]
    assert torch.allclose(norm.running_mean, seen.mean(1), atol=1e-6)
    assert torch.allclose(norm.running_var, seen.var(1), rtol=1e-5)
    apart = averaged(case, case.twin())[1]
    assert torch.allclose(apart.running_mean, seen.mean(1), atol=1e-6)
    assert not apart.training  # as it was


def test_what_keeps_no_statistics_has_none_to_average():
    case = written(network("nn.BatchNorm2d(8, track_running_stats=False)"))
    with pytest.raises(UnstuckError, match="no normalization layer keeps running statistics"):
        exact_statistics(case).apply(case)


def test_frozen_statistics_are_exact_and_stay():
    case = resumed(left(written(network())))
    changed = frozen_statistics(case).apply(case)
    before = changed.model[1].running_mean.clone()
    run = Training(changed)
    run.advance(10)
    assert torch.equal(run.model[1].running_mean, before) and run.model[0].training
    assert torch.equal(before, averaged(case, case.twin())[1].running_mean)
    assert case.twin()[1].training
