"""Fresh and followed statistics, the noise of batch means, and what recalibration gives back."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unstuck.criterion import prepared
from unstuck.probes.normalization import measure
from unstuck.problem import Problem, state_of

X = 20 + 2 * torch.randn(512, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > X[:, 1]).long()


def network(momentum=0.1):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 12), nn.BatchNorm1d(12, momentum=momentum), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 2)
    )


def trained(momentum=0.1, size=32, steps=120, mode=lambda model: model.train(), strays=0):
    """A problem of a model that was trained for real."""
    model = network(momentum)
    start = state_of(model)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    mode(model)
    for i in range(steps):
        at = torch.randint(0, 512, (size,), generator=torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        F.cross_entropy(model(X[at]), Y[at]).backward()
        optimizer.step()
    for _ in range(strays):
        model(X[:size] - 40)
    data = [(X[i : i + size], Y[i : i + size]) for i in range(0, 512, size)]
    made = Problem(model, nn.CrossEntropyLoss(), data, optimizer=optimizer)
    loop = replace(made.loop, steps=steps, backwards=steps)
    made, last = replace(made, data=tuple(data), held_out=(), loop=loop), made.last
    twin = made.twin()
    for name, tensor in {**dict(twin.named_parameters()), **dict(twin.named_buffers())}.items():
        tensor.data.copy_(start[name])
    made = replace(made, model=twin, last=last)
    return prepared(made)


def test_a_sound_layer():
    found = measure(trained())
    (layer,) = found.layers
    assert (layer.path, layer.trains, layer.fresh_start, layer.fresh_end, layer.count) == ("1", True, True, False, 32)
    assert layer.noise == pytest.approx(32**-0.5, rel=0.35)
    assert found.dropout == ("3",)
    assert abs(found.by_batch.value - found.by_running.value) < 0.1


def test_statistics_that_lag_are_given_back_by_recalibration():
    found = measure(trained(momentum=1e-4))
    assert found.by_batch.value > 0.9
    assert found.by_running.value < found.by_batch.value - 0.1
    assert found.recalibrated.value > 0.9


def test_a_frozen_layer_stays_fresh():
    (layer,) = measure(trained(mode=lambda model: model.train()[1].eval())).layers
    assert not layer.trains
    assert layer.fresh_end


def test_small_batches_cost():
    found = measure(trained(size=2, steps=300))
    assert found.layers[0].count == 2
    assert found.by_batch.value < found.by_large.value - 0.05


def test_nothing_is_measured_without_batchnorm():
    found = measure(Problem(nn.Linear(6, 2), nn.CrossEntropyLoss(), [(X, Y)] * 2))
    assert found.layers == ()
    assert found.by_batch is None


def test_the_problem_is_left_as_it_was():
    made = trained()
    before = state_of(made.model), {k: v.clone() for k, v in made.last.items()}
    measure(made)
    assert all(torch.equal(before[0][k], v) for k, v in state_of(made.model).items())
    assert all(torch.equal(before[1][k], v) for k, v in made.last.items())


@pytest.mark.parametrize("strays", [0, 1, 17])
def test_forward_passes_beyond_the_steps_are_counted(strays):
    assert measure(trained(steps=30, strays=strays)).strays == strays


def test_passes_in_evaluation_mode_and_layers_that_do_not_count_have_no_strays():
    assert measure(trained(steps=30, strays=9, mode=lambda model: model.train()[1].eval())).strays == 0
    model = nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 2))
    assert measure(Problem(model, nn.CrossEntropyLoss(), [(X, Y)] * 2)).strays == 0


def test_a_layer_used_twice_a_step_has_no_strays():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(6), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.norm(self.norm(x).relu()))

    model = Twice()
    made = Problem(model, nn.CrossEntropyLoss(), [(X[:32], Y[:32])] * 4)
    for more, strays in ((10, 0), (3, 6)):
        for _ in range(more):
            model(X[:32])
        made = replace(made, last=state_of(model), loop=replace(made.loop, backwards=10))
        assert measure(made).strays == strays


def test_evaluation_mode_is_held_against_training_on_the_same_samples():
    found = measure(trained(momentum=1e-4))
    gap = found.gap
    assert gap.loss == pytest.approx(found.by_running.loss - found.by_batch.loss)
    assert gap.score == pytest.approx(found.by_running.value - found.by_batch.value)
    assert gap.score < -2 * gap.score_error < 0 and gap.loss > 2 * gap.loss_error > 0
    sound = measure(trained())
    assert abs(sound.gap.score) < 0.1 and 0 < sound.gap.score_error < 0.1


@pytest.mark.parametrize("momentum", [1e-4, 0.1, None])
def test_a_layer_says_what_its_momentum_left_of_the_start(momentum):
    (layer,) = measure(trained(momentum=momentum, steps=60)).layers
    assert layer.updates == 60
    assert layer.left == pytest.approx(0.0 if momentum is None else (1 - momentum) ** 60)
    assert layer.spread.mean == layer.noise and layer.spread.count == layer.count
    assert (layer.distance.mean > 5) == (momentum == 1e-4)  # what is left of the start is far from inputs around 20


def test_a_frozen_layer_is_far_from_the_data_and_an_untracked_one_has_no_distance():
    (layer,) = measure(trained(mode=lambda model: model.train()[1].eval())).layers
    assert layer.distance.mean > 0.5 and layer.updates == 0 and layer.left == 1
    model = nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 2))
    (bare,) = measure(Problem(model, nn.CrossEntropyLoss(), [(X[:32], Y[:32])] * 4)).layers
    assert bare.distance is None and not bare.tracks and bare.left != bare.left


def test_the_ragged_last_batch_is_seen():
    made = trained()
    assert measure(made).ragged == 0
    last = made.recorded[-1][0] + 1, (X[:3], Y[:3])
    assert measure(replace(made, recorded=(*made.recorded, last))).ragged == 3
