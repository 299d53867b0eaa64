"""Inputs as they reach the first layer with parameters, and targets as the criterion gets them.

An *entrance* is a call of a layer whose input descends from no parameter: what the script (and the model's own
preparation, `x / 255`) made of the data stands there. Scale is measured feature by feature on finite entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unstuck.errors import UnstuckError
from unstuck.probes.level import class_shares, collect_targets
from unstuck.problem import CallKey, Problem, sandbox
from unstuck.trace import Seen, Trace, trace

CHANNELS = frozenset({"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "batch_norm",
                      "instance_norm", "group_norm"})  # fmt: skip
"""Layers whose features are dimension 1."""
FEATURES = frozenset({"linear", "addmm", "matmul", "__matmul__", "mm", "lstm", "gru", "rnn_tanh", "rnn_relu",
                      "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", "layer_norm", "rms_norm"})  # fmt: skip
"""Layers whose features are the last dimension."""
NORMS = frozenset({"batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm"})
JOINS = frozenset({"cat", "concat", "concatenate"})
BATCHES = 16


@dataclass(frozen=True)
class Entrance:
    """Where data enters the model. `keys`: the calls (several where a cell runs step by step); `place`: the member of a
    joined list that is data, else None; `axis`: dimension of the features; `mean`, `std`, `peak` (largest magnitude)
    per feature over finite entries; `nonfinite`: share of entries that are NaN or infinite; `binary`: only 0 and 1."""

    keys: tuple[CallKey, ...]
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


def measure(problem: Problem) -> Data:
    """Up to `BATCHES` forward passes at the initial state. Raises UnstuckError where no data enters a known layer."""
    found: dict[tuple[str, str, int | None], list[tuple[CallKey, int, Tensor]]] = {}
    with sandbox(0), torch.no_grad():
        for batch in problem.data[:BATCHES]:
            seen = trace(problem, problem.twin(), batch)
            for call in seen.calls:
                for place, tensor in _raw(seen, call):
                    spot = (call.name, call.where, place)
                    found.setdefault(spot, []).append((call.key, _axis(call, tensor), tensor.detach()))
        wanted = collect_targets(problem, problem.data[:BATCHES])
    inputs = tuple(_entrance(*spot, entries) for spot, entries in found.items())
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


def _raw(seen: Trace, call: Seen) -> list[tuple[int | None, Tensor]]:
    """Data among the arguments of a layer: floating, from no parameter; in a list, beside something that lives."""
    first = call.args[0] if call.args else call.kwargs.get("input", call.kwargs.get("tensors"))
    if call.name in JOINS and isinstance(first, Sequence) and any(map(seen.lives, first)):
        return [(i, t) for i, t in enumerate(first) if _is_data(seen, t)]
    reads = {id(seen.linked.tensors[n]) for n in seen.linked.reads(call.index)}
    if call.name in CHANNELS | FEATURES and reads & seen.parameters and _is_data(seen, first):
        assert isinstance(first, Tensor)
        return [(None, first)]
    return []


def _is_data(seen: Trace, tensor: Any) -> bool:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.dim() < 2:
        return False
    return not seen.lives(tensor) and id(tensor) not in seen.parameters


def _axis(call: Seen, tensor: Tensor) -> int:
    if call.name in JOINS:
        axis = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else 0)
        return int(axis)
    return 1 if call.name in CHANNELS else -1


def _entrance(name: str, where: str, place: int | None, entries: list[tuple[CallKey, int, Tensor]]) -> Entrance:
    axis, width = entries[0][1], entries[0][2].shape[entries[0][1]]
    rows = torch.cat([features_last(t, a) for _, a, t in entries if t.shape[a] == width]).double()
    finite = rows.isfinite()
    mean, std = moments(rows)
    known = torch.where(finite, rows, 0.0)
    return Entrance(
        keys=tuple(dict.fromkeys(key for key, _, _ in entries)),
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
