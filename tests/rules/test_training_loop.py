"""Rules of section 8: each fires on its own fault, names the place, and is silent on the look-alikes."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unstuck.evidence import Evidence
from unstuck.loop import Loop
from unstuck.probes import normalization, reach
from unstuck.problem import Problem
from unstuck.recipe import OptimizerRecipe
from unstuck.rules import (
    detached_graph,
    eval_mode_training,
    gradients_accumulate,
    no_optimizer_step,
    parameters_frozen,
    parameters_not_optimized,
)

RULES = (gradients_accumulate, no_optimizer_step, parameters_not_optimized, parameters_frozen, detached_graph,
         eval_mode_training)  # fmt: skip
X = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
NAMES = ("body.weight", "body.bias")
WATCHED = {"steps": 50, "backwards": 50, "losses": (0.7,) * 50, "loss_site": "/home/me/train.py:12"}


class Net(nn.Module):
    def __init__(self, between=lambda z: z, bn=False, quiet=False):
        super().__init__()
        self.quiet = quiet
        self.body, self.head = nn.Linear(32, 32), nn.Linear(32, 2)
        self.norm = nn.BatchNorm1d(32) if bn else nn.Identity()
        self.between = between

    def forward(self, x):
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.quiet):
            z = self.norm(self.body(x).relu())
        return self.head(self.between(z))


def pretrained(model):
    """A direction that stands out in every matrix, as training leaves it."""
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p += torch.outer(torch.ones(len(p)), torch.linspace(-1, 1, p.shape[1]))
    return model


def problem(model=None, hold=None, **facts):
    torch.manual_seed(0)
    model = model or Net()
    made = Problem(
        model,
        nn.CrossEntropyLoss(),
        [(X[i::4], Y[i::4]) for i in range(4)],
        optimizer=torch.optim.Adam(model.parameters()),
    )
    if hold is not None:
        hyper, _ = made.optimizer.groups[0]
        made = replace(made, optimizer=OptimizerRecipe(torch.optim.Adam, ((hyper, hold),), site="/home/me/train.py:5"))
    return replace(made, loop=replace(made.loop, **{**WATCHED, **facts}))


def evidence(made):
    return Evidence(
        made.loop, made, made.optimizer, reach=reach.measure(made), normalization=normalization.measure(made)
    )


def suspicions(made):
    found = [rule.RULE.judge(evidence(made)) for rule in RULES]
    return {s.cause: s for s in found if s is not None}


def frozen(model, names=NAMES):
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return model


def through_numpy(z):
    return torch.from_numpy(z.detach().numpy())


HEAD = ("head.weight", "head.bias")
SICK = {
    "never cleared": ("gradients-accumulate", lambda: problem(uncleared=1.0)),
    "no step": ("no-optimizer-step", lambda: problem(steps=0, stepping=False)),
    "wasted": ("no-optimizer-step", lambda: problem(steps=5, accumulate=10, discarded=1.0)),
    "resting": ("no-optimizer-step", lambda: problem(hold=HEAD, resting=NAMES)),
    "lacking": ("parameters-not-optimized", lambda: problem(hold=HEAD, unheld=NAMES)),
    "another model": ("parameters-not-optimized", lambda: problem(hold=(), unheld=NAMES + HEAD, foreign=4)),
    "in a list": ("parameters-not-optimized", lambda: problem(hold=HEAD, unheld=NAMES, hidden=NAMES)),
    "made anew": ("parameters-not-optimized", lambda: problem(Net(lambda z: nn.Linear(32, 32)(z)))),
    "frozen": ("parameters-frozen", lambda: problem(frozen(Net()), frozen=NAMES)),
    "detach": ("detached-graph", lambda: problem(Net(torch.Tensor.detach), without_gradient=NAMES)),
    "data": ("detached-graph", lambda: problem(Net(lambda z: z.data), without_gradient=NAMES)),
    "numpy": ("detached-graph", lambda: problem(Net(through_numpy), without_gradient=NAMES)),
    "no_grad": ("detached-graph", lambda: problem(Net(quiet=True), without_gradient=NAMES)),
    "rounded": ("detached-graph", lambda: problem(Net(torch.round))),
    "loss anew": ("detached-graph", lambda: problem(detached="the loss was made anew")),
    "eval": ("eval-mode-training", lambda: problem(Net(bn=True), eval_share=1.0)),
    "eval, mostly": ("eval-mode-training", lambda: problem(Net(bn=True), eval_share=0.8)),
}  # fmt: skip


@pytest.mark.parametrize("name", SICK)
def test_fires_alone_as_a_fault(name):
    cause, make = SICK[name]
    found = suspicions(make())
    assert list(found) == [cause]
    suspicion = found[cause]
    assert suspicion.fault
    assert suspicion.strength > 0.8
    assert suspicion.where
    assert suspicion.remedies[0].code
    assert 1 <= len(suspicion.evidence) <= 4


def linear_probe():
    return problem(pretrained(Net()), hold=HEAD, unheld=NAMES)


HEALTHY = {
    "sound": problem,
    "accumulation": lambda: problem(accumulate=4, backwards=200),
    "a few odd steps": lambda: problem(uncleared=0.2),
    "by hand": lambda: problem(steps=0, stepping=False, by_hand=True, unheld=NAMES),
    "raised at once": lambda: problem(steps=0, backwards=1, stepping=False),
    "linear probe": linear_probe,
    "frozen after training": lambda: problem(frozen(pretrained(Net())), frozen=NAMES),
    "frozen and left out": lambda: problem(frozen(Net()), hold=HEAD),
    "probe by detach": lambda: problem(pretrained(Net(torch.Tensor.detach)), without_gradient=NAMES),
    "another loss reaches it": lambda: problem(Net(torch.Tensor.detach)),
    "straight through": lambda: problem(Net(lambda z: z + (z.round() - z).detach())),
    "watched with numpy": lambda: problem(Net(lambda z: [z, z.detach().numpy().mean()][0])),
    "eval without batchnorm": lambda: problem(eval_share=1.0),
    "eval at the end": lambda: problem(Net(bn=True), eval_share=0.3),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_silent(name):
    assert suspicions(HEALTHY[name]()) == {}


def test_eval_mode_with_followed_statistics_is_meant_so():
    made = problem(Net(bn=True), eval_share=1.0)
    made.model.norm.running_mean.fill_(0.3)
    assert "eval-mode-training" not in suspicions(made)


@pytest.mark.parametrize(
    ("rule", "facts"),
    [
        (gradients_accumulate, {"uncleared": 1.0}),
        (no_optimizer_step, {"steps": 0, "stepping": False}),
        (parameters_not_optimized, {"unheld": NAMES}),
        (parameters_frozen, {"frozen": NAMES}),
        (detached_graph, {"detached": "the loss was made anew"}),
        (eval_mode_training, {"eval_share": 1.0}),
    ],
)
def test_the_loop_alone_is_enough_where_nothing_replays(rule, facts):
    loop = Loop(**{**WATCHED, **facts})
    suspicion = rule.RULE.judge(Evidence(loop))
    assert suspicion is not None
    assert suspicion.cause == rule.RULE.cause
    assert suspicion.where
    assert rule.RULE.judge(Evidence(Loop(**WATCHED))) is None


def test_summaries_name_the_place():
    found = suspicions(SICK["in a list"][1]())["parameters-not-optimized"]
    assert "body" in found.summary
    assert "plain list" in found.summary
    found = suspicions(SICK["another model"][1]())["parameters-not-optimized"]
    assert "another model" in found.summary
    found = suspicions(SICK["data"][1]())["detached-graph"]
    assert ".data" in found.summary


@pytest.mark.parametrize(
    "name", ["never cleared", "no step", "lacking", "frozen", "detach", "no_grad", "loss anew", "eval"]
)
def test_the_first_remedy_removes_the_fault(name):
    cause, make = SICK[name]
    made = make()
    cured = suspicions(made)[cause].remedies[0].apply(made)
    twin = cured.twin()
    loss = cured.value(twin, cured.data[0])
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert twin.body.weight.grad is not None
    assert twin.training
    assert cured.loop.stepping
    assert cured.loop.uncleared == 0.0
    assert cured.loop.detached == ""
    assert "body.weight" in cured.optimizer.groups[0][1]
    assert F.cross_entropy(twin(X), Y).isfinite()
