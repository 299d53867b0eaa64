"""Layers in lists, dicts, objects and bare tensors are found, named as a user would, and trainable once registered."""

import copy

import pytest
import torch
from torch import nn

from unstuck.capture.hidden import hidden, names_of, parameters_of, register


class Holder:
    def __init__(self):
        self.gate = nn.Linear(2, 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.known = nn.Linear(2, 2)
        self.layers = [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Tanh())]
        self.table = {"a": nn.Linear(2, 2, bias=False)}
        self.holder = Holder()
        self.scale = torch.ones(2, requires_grad=True)
        self.weights = [torch.ones(2, requires_grad=True)]
        self.alias = self.known
        self.fixed = torch.ones(2)
        self.note = ["text", 3, nn.Tanh()]

    def forward(self, x):
        for layer in (self.known, *self.layers, self.table["a"], self.holder.gate):
            x = layer(x)
        return x * self.scale * self.weights[0] + self.fixed


NAMES = {
    "layers[0].weight", "layers[0].bias", "layers[1].0.weight", "layers[1].0.bias", "table['a'].weight",
    "holder_gate.weight", "holder_gate.bias", "scale", "weights[0]",
}  # fmt: skip


def test_everything_the_module_does_not_know_is_found_once():
    net = Net()
    tensors, modules = names_of(net, hidden(net))
    assert set(tensors.values()) == NAMES
    assert {"layers[0]", "layers[1]", "layers[1].0", "holder_gate"} <= set(modules.values())
    assert len(parameters_of(hidden(net))) == len(NAMES)


def test_registered_on_a_copy_they_train_and_the_original_is_untouched():
    net, x = Net(), torch.randn(4, 2)
    twin = copy.deepcopy(net)
    assert set(register(twin, hidden(twin))) == NAMES
    assert torch.equal(twin(x), net(x))
    twin(x).sum().backward()
    assert all(p.grad is not None for p in twin.parameters())
    again = copy.deepcopy(twin)
    with torch.no_grad():
        again.get_parameter("layers[0].weight").zero_()
    assert not torch.equal(again(x), twin(x))
    assert {n for n, _ in net.named_parameters()} == {"known.weight", "known.bias"}


@pytest.mark.parametrize(
    "make", [lambda: nn.Sequential(nn.Linear(2, 2)), lambda: nn.LSTM(2, 2), lambda: nn.ModuleList()]
)
def test_nothing_is_hidden_in_sound_modules(make):
    assert hidden(make()) == []


def test_containers_that_hold_themselves_end():
    net = nn.Linear(2, 2)
    net.loop = [net]
    net.loop.append(net.loop)
    assert hidden(net) == []
