"""Gates for a plain recurrent network: a GRU of the same sizes in the place of nn.RNN."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy
from unstuck.sandbox import sandbox


def gated(problem: Problem) -> Remedy:
    """A GRU (Cho et al. 2014) for every nn.RNN: the same inputs, outputs and states, and a path without decay."""
    return Remedy(
        "gated-recurrence",
        "use a GRU, whose gates carry the gradient through time",
        "nn.GRU(...) instead of nn.RNN(...)",
        _gated,
    )


def _gated(problem: Problem) -> Problem:
    model = problem.twin()
    recipe = problem.optimizer
    with sandbox(problem.seed):
        for path, module in list(model.named_modules()):
            if type(module) is nn.RNN:
                parent, _, name = path.rpartition(".")
                setattr(model.get_submodule(parent), name, _gru(module))
    return replace(problem, model=model, optimizer=recipe)


def _gru(rnn: nn.RNN) -> nn.GRU:
    return nn.GRU(
        rnn.input_size,
        rnn.hidden_size,
        rnn.num_layers,
        bias=rnn.bias,
        batch_first=rnn.batch_first,
        dropout=rnn.dropout,
        bidirectional=rnn.bidirectional,
        device=rnn.weight_ih_l0.device,
        dtype=rnn.weight_ih_l0.dtype,
    )
