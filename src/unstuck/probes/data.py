"""Inputs as they reach the first layer with parameters, and targets as the criterion gets them.

An *entrance* is a call of a layer whose input descends from no parameter: what the script (and the model's own
preparation, `x / 255`) made of the data stands there. Scale is measured feature by feature on finite entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unstuck.errors import UnstuckError
from unstuck.probes.level import class_shares, collect_targets
from unstuck.problem import Problem
from unstuck.rewriting import CallKey
from unstuck.sandbox import sandbox
from unstuck.trace import Seen, Trace, trace

CHANNELS = frozenset({"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "batch_norm",
                      "instance_norm", "group_norm"})  # fmt: skip
"""Layers whose features are dimension 1."""
FEATURES = frozenset({"linear", "addmm", "matmul", "__matmul__", "mm", "lstm", "gru", "rnn_tanh", "rnn_relu",
                      "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", "layer_norm", "rms_norm"})  # fmt: skip
"""Layers whose features are the last dimension."""
NORMS = frozenset({"batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm"})
PRODUCTS = frozenset({"mul", "multiply", "__mul__", "__rmul__"})
"""Features times weights, entry by entry: how a tokenizer of features, or a gate on inputs, is written by hand."""
JOINS = frozenset({"cat", "concat", "concatenate"})
BATCHES = 16


@dataclass(frozen=True)
class Entrance:
    """Where data enters the model. `keys`: the calls (several where a cell runs step by step); `argument`: position or
    name of the argument that is data, `place`: its member where it is a list that is joined, else None; `axis`:
    dimension of the features; `mean`, `std`, `peak` (largest magnitude) per feature over finite entries; `nonfinite`:
    share of entries that are NaN or infinite; `binary`: only 0 and 1."""

    keys: tuple[CallKey, ...]
    argument: int | str
    place: int | None
    layer: str
    where: str
    axis: int
    mean: Tensor
    std: Tensor
    peak: Tensor
    nonfinite: float
    binary: bool
    samples: int

    @property
    def normalized(self) -> bool:
        """True if the first layer is itself a normalization: the data's scale does not matter."""
        return self.layer in NORMS

    @property
    def rms(self) -> Tensor:
        """Root mean square of each feature."""
        return (self.mean.square() + self.std.square()).sqrt()


@dataclass(frozen=True)
class Targets:
    """What the criterion compares with: `mean` and `std` per column, share of entries that are not finite, the relative
    frequency of each class (empty for a regression)."""

    mean: Tensor
    std: Tensor
    low: float
    high: float
    nonfinite: float
    shares: tuple[float, ...]
    samples: int


@dataclass(frozen=True)
class Data:
    """Entrances in the order of the forward pass, and the targets (None where the criterion is unknown)."""

    inputs: tuple[Entrance, ...]
    targets: Targets | None


Spot = tuple[str, str, int | str, int | None]
"""Name and place of the call, the argument, the member of a list."""


def measure(problem: Problem) -> Data:
    """Up to `BATCHES` forward passes at the initial state. Raises UnstuckError where no data enters a known layer."""
    found: dict[Spot, list[tuple[CallKey, int, Tensor]]] = {}
    with sandbox(0), torch.no_grad():
        for batch in problem.data[:BATCHES]:
            seen = trace(problem, problem.twin(), batch)
            for call in seen.calls:
                for argument, place, axis, tensor in _raw(seen, call):
                    spot = (call.name, call.where, argument, place)
                    found.setdefault(spot, []).append((call.key, axis, tensor.detach()))
        wanted = collect_targets(problem, problem.data[:BATCHES])
    inputs = tuple(_entrance(spot, entries) for spot, entries in found.items())
    if not inputs and not wanted:
        raise UnstuckError("no data was seen to enter a layer, and no target to be compared with")
    return Data(inputs, _targets(problem, wanted) if wanted else None)


def features_last(tensor: Tensor, axis: int) -> Tensor:
    """The entries as rows of features: [..., F at axis, ...] → [rows, F]."""
    return tensor.movedim(axis, -1).reshape(-1, tensor.shape[axis])


def along(stat: Tensor, tensor: Tensor, axis: int) -> Tensor:
    """A statistic per feature, shaped to be broadcast against `tensor` whose features are dimension `axis`."""
    shape = [1] * tensor.dim()
    shape[axis] = -1
    return stat.to(tensor).reshape(shape)


def _raw(seen: Trace, call: Seen) -> Iterator[tuple[int | str, int | None, int, Tensor]]:
    """Data among the arguments of a layer: floating, from no parameter; in a list, beside something that lives."""
    argument, first = _first(call)
    if call.name in JOINS and isinstance(first, Sequence) and any(map(seen.lives, first)):
        axis = int(call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else 0))
        yield from ((argument, i, axis, t) for i, t in enumerate(first) if _is_data(seen, t))
    weights = [t for n in seen.linked.reads(call.index) if _is_weight(seen, t := seen.linked.tensors[n])]
    if not weights:
        return
    if call.name in CHANNELS | FEATURES and _is_data(seen, first):
        yield argument, None, 1 if call.name in CHANNELS else -1, first
    factors = call.args[:2] if call.name in PRODUCTS else ()
    for i, factor in enumerate(factors):
        if _is_data(seen, factor) and (shared := _shared_axis(factor, weights[0])):
            yield i, None, shared, factor
    if call.name == "einsum" and call.args:
        yield from _contracted(seen, call)


def _first(call: Seen) -> tuple[int | str, Any]:
    if call.args:
        return 0, call.args[0]
    name = next((name for name in ("input", "tensors") if name in call.kwargs), "")
    return name, call.kwargs.get(name)


def _shared_axis(data: Tensor, weight: Tensor) -> int:
    """The last dimension (counted from the end) in which both have the same number of entries, of several; 0: none."""
    pairs = zip(reversed(data.shape), reversed(weight.shape), strict=False)
    return next((-1 - i for i, (a, b) in enumerate(pairs) if a == b > 1), 0)


def _contracted(seen: Trace, call: Seen) -> Iterator[tuple[int | str, int | None, int, Tensor]]:
    """Data in `einsum("nf,fd->nfd", data, weight)`: its features are the last index that a weight has too."""
    terms = str(call.args[0]).replace(" ", "").split("->")[0].split(",")
    if len(terms) != len(call.args) - 1:  # operands in a list
        return
    shared = {letter for t, x in zip(terms, call.args[1:], strict=True) if _is_weight(seen, x) for letter in t}
    for i, (term, operand) in enumerate(zip(terms, call.args[1:], strict=True), 1):
        axes = [place - len(term) for place, letter in enumerate(term) if letter in shared - {"."}]
        if axes and _is_data(seen, operand):
            yield i, None, axes[-1], operand


def _is_weight(seen: Trace, tensor: Any) -> bool:
    """A parameter, or a view of one (`W.T`)."""
    return isinstance(tensor, Tensor) and not {id(tensor), id(tensor._base)}.isdisjoint(seen.parameters)


def _is_data(seen: Trace, tensor: Any) -> bool:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.dim() < 2:
        return False
    return not seen.lives(tensor) and not _is_weight(seen, tensor)


def _entrance(spot: Spot, entries: list[tuple[CallKey, int, Tensor]]) -> Entrance:
    name, where, argument, place = spot
    axis, width = entries[0][1], entries[0][2].shape[entries[0][1]]
    rows = torch.cat([features_last(t, a) for _, a, t in entries if t.shape[a] == width]).double()
    finite = rows.isfinite()
    mean, std = moments(rows)
    known = torch.where(finite, rows, 0.0)
    return Entrance(
        keys=tuple(dict.fromkeys(key for key, _, _ in entries)),
        argument=argument,
        place=place,
        layer=name,
        where=where,
        axis=axis,
        mean=mean,
        std=std,
        peak=known.abs().amax(0),
        nonfinite=float((~finite).double().mean()),
        binary=bool(((known == 0) | (known == 1)).all()),
        samples=rows.shape[0],
    )


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column over its finite entries (0 and 0 where it has none)."""
    finite = rows.isfinite()
    count = finite.sum(0).clamp_min(1)
    known = torch.where(finite, rows, 0.0)
    mean = known.sum(0) / count
    spread = torch.where(finite, rows - mean, 0.0).square().sum(0) / count
    return mean, spread.sqrt()


def _targets(problem: Problem, wanted: list[Tensor]) -> Targets:
    rows = torch.cat([t.reshape(t.shape[0], -1) if t.dim() else t.reshape(1, 1) for t in wanted]).double()
    mean, std = moments(rows)
    known = rows[rows.isfinite()]
    classes = problem.criterion.task in {"classes", "onehot", "binary"}
    return Targets(
        mean=mean,
        std=std,
        low=float(known.min()) if known.numel() else float("nan"),
        high=float(known.max()) if known.numel() else float("nan"),
        nonfinite=float((~rows.isfinite()).double().mean()),
        shares=tuple(class_shares(problem, wanted).tolist()) if classes else (),
        samples=rows.shape[0],
    )
