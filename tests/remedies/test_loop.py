"""Each change to the loop, on a problem that has the fault: the control does not learn, the remedied copy does."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unstuck.errors import BadArgument
from unstuck.problem import Problem
from unstuck.recipe import OptimizerRecipe
from unstuck.remedies import loop
from unstuck.training import Training

X = torch.randn(128, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] * X[:, 1] > 0).long()
BATCHES = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 128, 16)]


def problem(model=None, optimizer=torch.optim.Adam, lr=0.02, **facts):
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    held = [p for p in model.parameters() if p.requires_grad] or list(model.parameters())
    made = Problem(model, nn.CrossEntropyLoss(), BATCHES, optimizer=optimizer(held, lr=lr))
    return replace(made, loop=replace(made.loop, **facts))


def losses(made, steps=60):
    run = Training(made)
    run.advance(steps)
    return run.losses


def last(made, steps=60):
    return sum(losses(made, steps)[-8:]) / 8


def test_clearing_gradients():
    sick = problem(uncleared=1.0, optimizer=torch.optim.SGD, lr=0.5)
    assert last(loop.clear_gradients().apply(sick)) < 0.8 * last(sick)


@pytest.mark.parametrize("facts", [{"stepping": False}, {"stepping": False, "accumulate": 4, "discarded": 1.0}])
def test_stepping(facts):
    sick = problem(**facts)
    assert last(sick) == pytest.approx(sum(losses(sick, 8)) / 8, rel=0.05)
    cured = loop.step_every_time().apply(sick)
    assert cured.loop.accumulate == 1
    assert last(cured) < 0.7 * last(sick)


def test_stepping_without_any_optimizer_makes_one_over_what_is_trainable():
    sick = replace(problem(stepping=False), optimizer=None)
    cured = loop.step_every_time().apply(sick)
    assert cured.optimizer.cls is torch.optim.Adam
    assert len(cured.optimizer.groups[0][1]) == 4
    assert last(cured, 300) < last(sick)


def test_discarded_gradients_are_reproduced():
    """Three of four backward passes are thrown away: the step is that of the last batch alone."""
    wasted, plain = problem(accumulate=4, discarded=1.0), problem(accumulate=4)
    runs = [Training(p) for p in (wasted, plain)]
    for run in runs:
        run.advance(1)
    weights = [run.model[0].weight for run in runs]
    assert not torch.equal(*weights)
    alone = Training(wasted)
    for _ in range(3):
        alone.next_batch()
    batch = alone.next_batch()
    F.cross_entropy(alone.model(batch[0]), batch[1]).backward()
    alone.optimizer.step()
    assert torch.allclose(alone.model[0].weight, weights[0])


def test_holding_what_the_optimizer_lacks():
    full = problem()
    hyper, names = full.optimizer.groups[0]
    sick = replace(full, optimizer=OptimizerRecipe(torch.optim.Adam, ((hyper, ()),)))
    assert last(sick) > 0.95 * losses(sick, 1)[0]
    cured = loop.hold(names, "code").apply(sick)
    assert losses(cured) == losses(full)


def test_holding_twice_adds_once():
    made = problem()
    assert loop.holding(made, ("0.weight",)).groups == made.optimizer.groups


def test_unfreezing():
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    names = ["0.weight", "0.bias", "2.weight"]
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    sick = Problem(model, nn.CrossEntropyLoss(), BATCHES, optimizer=torch.optim.Adam(model.parameters(), 0.02))
    cured = loop.unfreeze(names, "model").apply(sick)
    assert not sick.twin()[0].weight.requires_grad
    assert last(cured) < 0.8 * last(sick)


def test_train_mode_is_for_every_module():
    made = problem(nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 2)), eval_share=1.0)
    sick = replace(made, loop=replace(made.loop, training=dict.fromkeys(("", "0", "1", "2"), False)))
    assert not sick.twin()[1].training
    cured = loop.train_mode("model").apply(sick)
    assert all(m.training for m in cured.twin().modules())
    assert cured.loop.eval_share == 0.0


class Cut(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 16), nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.body(x).detach().relu())


def test_attaching_a_call():
    sick = problem(Cut())
    cured = loop.attach([("detach", 0)], "text", "code").apply(sick)
    twin = cured.twin()
    cured.value(twin, cured.data[0]).backward()
    assert twin.body.weight.grad is not None
    assert last(cured) < 0.9 * last(sick)


def test_attaching_a_loss():
    sick = problem(detached="made anew")
    assert last(sick) == pytest.approx(sum(losses(sick, 8)) / 8, rel=0.05)
    assert last(loop.attach([], "text", "code").apply(sick)) < 0.7 * last(sick)


def test_what_cannot_be_done_on_a_copy_says_so():
    with pytest.raises(BadArgument, match="outside of torch"):
        loop.attach([], "text", "code").apply(problem())
    with pytest.raises(BadArgument, match="cannot be rewritten"):
        loop.make_once("net.py:3").apply(problem())
