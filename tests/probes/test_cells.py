"""Gates of fused recurrent layers, against the cells that torch writes out step by step."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unstuck.criterion import find
from unstuck.probes import activations
from unstuck.probes.cells import gates
from unstuck.problem import Problem
from unstuck.trace import trace


class Reader(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.cell = getattr(nn, kind)(5, 4, batch_first=True, **options).double()
        self.head = nn.Linear(4 * (2 if options.get("bidirectional") else 1), 3).double()

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


def problem(kind, scale=1.0, **options):
    torch.manual_seed(0)
    model = Reader(kind, **options)
    with torch.no_grad():
        for parameter in model.cell.parameters():
            parameter.mul_(scale)
    return Problem(model, F.cross_entropy, [(torch.randn(6, 7, 5).double(), torch.arange(6) % 3) for _ in range(2)])


def by_hand(kind, cell, x):
    """Values of all gates [gates · cells, times · samples], one step after the other."""
    state, found = torch.zeros(len(x), 4, dtype=x.dtype), []
    memory = state
    biases = (cell.bias_ih_l0, cell.bias_hh_l0) if cell.bias else (0, 0)
    for step in x.unbind(1):
        a, b = step @ cell.weight_ih_l0.T + biases[0], state @ cell.weight_hh_l0.T + biases[1]
        if kind == "LSTM":
            i, f, g, o = (a + b).chunk(4, 1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            memory = f * memory + i * g
            state = o * memory.tanh()
            found.append(torch.cat([i, f, o, g], 1))
        elif kind == "GRU":
            (ar, az, an), (br, bz, bn) = a.chunk(3, 1), b.chunk(3, 1)
            r, z = (ar + br).sigmoid(), (az + bz).sigmoid()
            n = (an + r * bn).tanh()
            state = (1 - z) * n + z * state
            found.append(torch.cat([r, z, n], 1))
        else:
            state = (a + b).tanh()
            found.append(state)
    return torch.cat(found).detach()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False}], ids=str)
def test_the_gates_are_those_of_the_cell(kind, options):
    case = problem(kind, **options)
    model = case.twin()
    with torch.no_grad():
        seen = trace(case, model, case.data[0])
    call = next(c for c in seen.calls if c.name in {"lstm", "gru", "rnn_tanh"})
    inside = gates(call, seen.linked.calls[call.index].function)
    wanted = by_hand(kind, model.cell, case.data[0][0])
    ours = torch.cat([inside.sigmoid, inside.tanh])
    assert torch.allclose(ours.sort().values, wanted.flatten().sort().values, atol=1e-12)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_large_weights_saturate_the_gates_and_usual_ones_do_not(kind):
    calm, wild = (activations.measure(problem(kind, scale)).initial[-1] for scale in (1.0, 40.0))
    assert calm.saturated < 0.02
    assert wild.saturated > 0.6
    assert wild.key[0] in {"lstm", "gru", "rnn_tanh"} and "cell" in wild.where


def test_other_calls_have_no_gates():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    case = Problem(model, F.cross_entropy, [(torch.randn(6, 3), torch.arange(6) % 2)] * 2)
    seen = trace(case, case.twin(), case.data[0])
    assert all(gates(c, seen.linked.calls[c.index].function) is None for c in seen.calls)
    assert find(seen).kind == "cross_entropy"
