"""Gradients against closed forms: a product of weights, a decaying recurrence, single steps computed by hand."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from unstuck.errors import UnstuckError
from unstuck.loop import Clip, Loop
from unstuck.probes.gradients import gradient, measure
from unstuck.problem import Problem, state_of


def batches(count=4, features=6, classes=3):
    torch.manual_seed(1)
    return [(torch.randn(16, features), torch.randint(0, classes, (16,))) for _ in range(count)]


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def problem(model, optimizer=None, data=None, loss=None):
    return Problem(model, loss or nn.CrossEntropyLoss(), data or batches(), optimizer=optimizer)


def test_signals_of_scaled_identities_fall_by_the_scale():
    model = nn.Sequential(*[nn.Linear(6, 6, bias=False) for _ in range(4)])
    for layer in model:
        nn.init.eye_(layer.weight).data.mul_(0.01)
    signals = measure(problem(model)).first.signals
    ratios = [a.norm / b.norm for a, b in pairwise(signals)]
    assert ratios == pytest.approx([0.01] * 3, rel=1e-4)
    assert [s.where for s in signals] == [f"{i} (Linear)" for i in range(4)]


def test_gradient_equals_autograd_and_leaves_buffers():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    case = problem(model)
    twin = case.twin()
    before = state_of(twin)
    loss, grads = gradient(case, twin, case.data[0])
    assert all(torch.equal(before[n], t) for n, t in state_of(twin).items())
    x, y = case.data[0]
    reference = copy.deepcopy(model)
    nn.functional.cross_entropy(reference(x), y).backward()
    for name, parameter in reference.named_parameters():
        assert torch.allclose(grads[name], parameter.grad)
    assert loss == pytest.approx(nn.functional.cross_entropy(copy.deepcopy(model)(x), y).item())


def test_step_of_plain_descent_is_rate_times_gradient():
    model = mlp()
    found = measure(problem(model, torch.optim.SGD(model.parameters(), lr=0.5))).first
    case = problem(model)
    _, grads = gradient(case, case.twin(), case.data[0])
    first = found.layers[0]
    assert first.step == pytest.approx(
        0.5 * float(grads["0.weight"].norm() / model[0].weight.detach().norm()), rel=1e-4
    )


def test_dropout_does_not_look_like_decay():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    rms = torch.cat([p.detach().flatten() for p in model.parameters()]).square().mean().sqrt()
    assert measure(problem(model, optimizer)).decay == pytest.approx(0.01 * float(rms), rel=0.5)


def test_what_clipping_leaves_is_what_torchs_own_clipping_leaves():
    model = mlp()
    by_norm = [Clip("norm", *rest) for rest in ((0.05,), (100.0,), (0.05, 1.0), (0.05, math.inf))]
    for clip in (*by_norm, Clip("value", 0.01), Clip("value", 10.0)):
        case = replace(problem(model, data=batches(1)), loop=Loop(clip=clip))
        _, found = gradient(case, case.twin(), case.data[0])
        for name, parameter in model.named_parameters():
            parameter.grad = found[name].clone()
        before = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        order = [clip.order] if clip.kind == "norm" else []
        getattr(nn.utils, f"clip_grad_{clip.kind}_")(model.parameters(), clip.bound, *order)
        after = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        assert measure(case).first.left == pytest.approx(float(after / before), rel=1e-4)


def test_decay_share_is_decay_times_weights_over_gradient():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=3.0)
    case = problem(model, optimizer)
    _, grads = gradient(case, case.twin(), case.data[0])
    weights = math.sqrt(sum(float(p.square().sum()) for p in model.parameters()))
    slope = math.sqrt(sum(float(g.square().sum()) for g in grads.values()))
    assert measure(case).decay == pytest.approx(3.0 * weights / slope, rel=1e-4)


def test_exhausted_is_adagrads_root_of_the_sum():
    model = mlp()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    for entry in optimizer.state.values():
        entry["sum"].fill_(1e6)
    case = problem(model, optimizer)
    _, grads = gradient(case, case.twin(), case.data[0])
    flat = torch.cat([g.flatten() for g in grads.values()])
    assert measure(case).exhausted == pytest.approx(float(flat.norm() / 1e3 / flat.sign().norm()), rel=1e-2)


def test_equal_rows_are_identical_and_random_ones_are_not():
    model = mlp()
    assert all(layer.identical == 0 for layer in measure(problem(model)).first.layers)
    for layer in (model[0], model[2]):
        nn.init.constant_(layer.weight, 0.1)
        nn.init.zeros_(layer.bias)
    layers = measure(problem(model)).first.layers
    assert [layer.identical for layer in layers] == [1.0, 0.0]  # the head's gradients differ from class to class


def test_gain_of_a_unit_normal_layer_is_the_root_of_its_fan_in():
    model = nn.Sequential(nn.Linear(400, 300), nn.Tanh(), nn.Linear(300, 3))
    nn.init.normal_(model[0].weight)
    found = measure(problem(model, data=batches(features=400))).first.layers[0]
    assert found.gain == pytest.approx(20.0, rel=0.01)


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(6, 6, nonlinearity="relu", batch_first=True, bias=False)
        self.head = nn.Linear(6, 3)
        nn.init.eye_(self.rnn.weight_hh_l0).data.mul_(0.5)
        nn.init.eye_(self.rnn.weight_ih_l0)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def test_through_time_halves_at_each_step_back():
    data = [(torch.rand(8, 10, 6), torch.randint(0, 3, (8,))) for _ in range(4)]
    times = measure(problem(Last(), data=data)).first.through_time
    assert len(times) == 10
    assert [a / b for a, b in pairwise(times)] == pytest.approx([0.5] * 9, rel=1e-4)



def test_a_loss_without_gradient_is_refused():
    with pytest.raises(UnstuckError, match="no gradient"):
        measure(problem(mlp(), loss=lambda output, target: output.detach().sum()))
