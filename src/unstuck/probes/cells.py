"""Gates of recurrent layers, which torch computes inside one fused call: recomputed from its arguments.

    LSTM    i, f, o = σ(W x + U h' + b),  g = tanh(W x + U h' + b)           h': the state one step earlier
    GRU     r, z = σ(W x + U h' + b),     n = tanh(W x + b + r ∘ (U h' + b'))
    RNN     h = tanh(W x + U h' + b)

Of several layers and directions the first layer's forward one is looked at: it meets the data. Costs one more run of
that layer and two matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unstuck.trace import Seen

SIGMOIDS = {"lstm": 3, "gru": 2, "rnn_tanh": 0}
"""How many of a cell's gates are sigmoids; one more is a tanh."""


@dataclass(frozen=True)
class Gates:
    """Values of the sigmoid gates [entries] and of the tanh one, and what enters them."""

    sigmoid: Tensor
    tanh: Tensor
    entering: Tensor


def gates(call: Seen, run: Any) -> Gates | None:
    """The gates in this call of a recurrent layer, `run` being its function; None for packed texts and projections."""
    if call.name not in SIGMOIDS or len(call.args) != 9 or not isinstance(call.args[0], Tensor):
        return None
    inputs, state, weights, biased, _, _, _, _, first = call.args
    inner, outer, *rest = (w.detach() for w in weights[: 4 if biased else 2])
    cells = outer.shape[1]
    if outer.shape[0] != (SIGMOIDS[call.name] + 1) * cells or inputs.dim() != 3:
        return None
    start = tuple(s.detach()[:1] for s in state) if isinstance(state, (tuple, list)) else state.detach()[:1]
    with torch.no_grad():
        inputs = inputs.detach()
        output = run(inputs, start, [inner, outer, *rest], biased, 1, 0.0, False, False, first)[0]
        time = 1 if first else 0
        begun = (start[0] if isinstance(start, tuple) else start).movedim(0, time)
        before = torch.cat([begun, output.narrow(time, 0, output.shape[time] - 1)], time)
        entering = inputs @ inner.T + (rest[0] if biased else 0)
        returning = before @ outer.T + (rest[1] if biased else 0)
        return _split(call.name, entering, returning, cells)


def _split(name: str, entering: Tensor, returning: Tensor, cells: int) -> Gates:
    if name == "gru":
        both = (entering + returning)[..., : 2 * cells]
        reset = both[..., :cells].sigmoid()
        candidate = entering[..., 2 * cells :] + reset * returning[..., 2 * cells :]
        return Gates(both.sigmoid().flatten(), candidate.tanh().flatten(), torch.cat([both, candidate], -1).flatten())
    whole = entering + returning
    if name == "rnn_tanh":
        return Gates(whole.new_zeros(0), whole.tanh().flatten(), whole.flatten())
    sigmoids = torch.cat([whole[..., : 2 * cells], whole[..., 3 * cells :]], -1)
    return Gates(sigmoids.sigmoid().flatten(), whole[..., 2 * cells : 3 * cells].tanh().flatten(), whole.flatten())
