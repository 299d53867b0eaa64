"""Gradients that arrive and that do not, and the call that cuts them off, for every way of cutting."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unstuck.probes.reach import measure, structure, structured
from unstuck.problem import Problem

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Net(nn.Module):
    def __init__(self, between):
        super().__init__()
        self.body, self.head, self.unused = nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(3, 3)
        self.between = between

    def forward(self, x):
        return self.head(self.between(self, x))


def no_grad(net, x):
    with torch.no_grad():
        return net.body(x)


CUTS = {
    "detach": lambda net, x: net.body(x).detach(),
    "data": lambda net, x: net.body(x).data,
    "no_grad": no_grad,
    "tensor": lambda net, x: torch.tensor(net.body(x)),
    "round": lambda net, x: net.body(x).round(),
    "numpy": lambda net, x: torch.from_numpy(net.body(x).detach().numpy() * 2),
    "argmax": lambda net, x: F.one_hot(net.body(x).argmax(1), 8).float(),
}
UNDONE = {"detach", "data", "no_grad", "tensor", "round"}


def problem(between, held=True):
    model = Net(between)
    parameters = model.parameters() if held else model.head.parameters()
    return Problem(model, nn.CrossEntropyLoss(), [(X, Y)] * 2, optimizer=torch.optim.SGD(parameters, 0.1))


@pytest.mark.parametrize("way", CUTS)
@pytest.mark.filterwarnings("ignore:To copy construct")
def test_every_way_of_cutting_is_seen(way):
    reach = measure(problem(CUTS[way]))
    gradient = {p.name: p.gradient for p in reach.parameters}
    assert gradient["body.weight"] == 0 if way == "round" else math.isnan(gradient["body.weight"])
    assert gradient["head.weight"] > 0
    cut = next(c for c in reach.cuts if "body.weight" in c.upstream)
    assert cut.name == ("detach" if way == "numpy" else way)
    assert cut.undone == (way in UNDONE)
    assert len(cut.keys) == 1


HEALTHY = {
    "plain": lambda net, x: net.body(x),
    "watched": lambda net, x: [net.body(x), net.body(x).detach().mean().item()][0],
    "straight through": lambda net, x: (lambda z: z + (z.round() - z).detach())(net.body(x)),
}


@pytest.mark.parametrize("way", HEALTHY)
def test_gradients_that_arrive(way):
    reach = measure(problem(HEALTHY[way]))
    by_name = {p.name: p for p in reach.parameters}
    assert by_name["body.weight"].gradient > 0
    assert by_name["body.weight"].used
    assert not by_name["unused.weight"].used
    assert reach.loss_has_graph


def test_gradients_are_those_of_the_loss():
    made = problem(HEALTHY["plain"])
    twin = made.twin()
    made.value(twin, made.data[0]).backward()
    for parameter in measure(made).parameters:
        if parameter.used:
            assert parameter.gradient == pytest.approx(float(twin.get_parameter(parameter.name).grad.norm()))


def test_held_and_shares():
    reach = measure(problem(HEALTHY["plain"], held=False))
    assert {p.name for p in reach.parameters if p.held} == {"head.weight", "head.bias"}
    assert reach.share(reach.named(("body.weight",))) == pytest.approx(48 / (48 + 8 + 16 + 2 + 9 + 3))


def test_layers_made_in_the_forward_pass():
    assert measure(problem(lambda net, x: nn.Linear(6, 8)(x))).anew
    assert not measure(problem(HEALTHY["plain"])).anew


def test_a_loss_without_a_graph():
    made = problem(lambda net, x: net.body(x))
    made = Problem(made.model, lambda out, y: F.cross_entropy(out, y).detach(), [(X, Y)] * 2)
    assert not measure(made).loss_has_graph


def test_structure_is_one_for_fresh_matrices_and_large_for_a_direction_that_stands_out():
    fresh = nn.Linear(64, 64).weight.detach()
    assert structure(fresh) == pytest.approx(1, abs=0.1)
    assert structure(fresh + 0.5 * torch.outer(torch.randn(64), torch.randn(64)) / 8) > 2
    assert math.isnan(structure(torch.randn(8)))
    assert math.isnan(structure(torch.zeros(8, 8)))


def test_training_leaves_structure():
    torch.manual_seed(0)
    x = torch.randn(512, 32)
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    y = (x @ torch.randn(32, 4)).argmax(1)
    data = [(x, y)] * 2
    assert not structured(measure(Problem(model, nn.CrossEntropyLoss(), data)).parameters)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert structured(measure(Problem(model, nn.CrossEntropyLoss(), data)).parameters)
