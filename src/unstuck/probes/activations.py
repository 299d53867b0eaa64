"""Activations per nonlinear call: units that are dead, saturated, identical; scale through depth; start and end.

A unit is a channel (dimension 1 of [N, C, …]) or a feature (the last dimension of [N, T, F]). Dead: its output is 0 on
every sample seen. Saturated: a sigmoid or tanh entry whose derivative is below `FLAT` of its largest (0.25, 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unstuck.probes.cells import gates
from unstuck.problem import Problem
from unstuck.sandbox import sandbox
from unstuck.trace import Seen, Trace, figures_of, trace

RECTIFIERS = frozenset({"relu", "relu_", "relu6", "threshold", "hardtanh", "clamp_min", "clamp_min_"})
SQUASHERS = frozenset({"sigmoid", "tanh", "sigmoid_", "tanh_", "hardsigmoid", "softsign"})
SMOOTH = frozenset(
    {"gelu", "silu", "elu", "elu_", "selu", "selu_", "leaky_relu", "leaky_relu_", "softplus", "mish", "prelu"}
)
FLAT = 0.05
BATCHES = 4


@dataclass(frozen=True)
class Activation:
    """One nonlinear call. Shares are of units (`dead`, `identical`) or entries (`saturated`); rms is over entries."""

    key: tuple[str, int]
    where: str
    path: str
    site: str
    kind: str
    units: int
    dead: float
    saturated: float
    identical: float
    rms: float
    input_rms: float
    samples: int


@dataclass(frozen=True)
class Activations:
    """Every nonlinear call in order, at the end of the training and at its start."""

    last: tuple[Activation, ...]
    initial: tuple[Activation, ...]


def measure(problem: Problem) -> Activations:
    """Up to four forward passes at the last and at the initial state, in the mode the user trained in."""
    with sandbox(0), torch.no_grad():
        return Activations(_at(problem, problem.twin(last=True)), _at(problem, problem.twin()))


def _at(problem: Problem, model: nn.Module) -> tuple[Activation, ...]:
    traces = [trace(problem, model, batch) for batch in problem.data[:BATCHES]]
    passes = [seen.calls for seen in traces]
    kinds = RECTIFIERS | SQUASHERS | SMOOTH
    keys = [call.key for call in passes[0] if call.name in kinds and figures_of(call.output) is not None]
    found = []
    for key in keys:
        calls = [call for calls in passes for call in calls if call.key == key]
        found.append(_summary(calls))
    return (*found, *_cells(traces[0]))


def _cells(seen: Trace) -> Iterator[Activation]:
    """The gates of recurrent layers, on one batch: counted as sigmoids, where there are none as tanh."""
    for call in seen.calls:
        inside = gates(call, seen.linked.calls[call.index].function)
        if inside is not None:
            values = torch.cat([inside.sigmoid.mul(2).sub(1), inside.tanh])  # 4 p (1 − p) = 1 − (2 p − 1)²
            yield Activation(
                key=call.key,
                where=call.where,
                path=call.path,
                site=call.site,
                kind="sigmoid" if inside.sigmoid.numel() else "tanh",
                units=int(call.args[2][1].shape[0]),
                dead=0.0,
                saturated=_saturated("tanh", values),
                identical=0.0,
                rms=float(values.square().mean().sqrt()),
                input_rms=float(inside.entering.square().mean().sqrt()),
                samples=values.numel() // int(call.args[2][1].shape[0]),
            )


def _summary(calls: list[Seen]) -> Activation:
    outputs = [by_unit(figures_of(call.output)) for call in calls]
    inputs = [figures_of(call.args[0] if call.args else call.kwargs.get("input")) for call in calls]
    joined = torch.cat([o for o in outputs if o.shape[1] == outputs[0].shape[1]])
    first = calls[0]
    return Activation(
        key=first.key,
        where=first.where,
        path=first.path,
        site=first.site,
        kind=first.name.rstrip("_"),
        units=joined.shape[1],
        dead=float((joined == 0).all(0).float().mean()) if first.name in RECTIFIERS else 0.0,
        saturated=_saturated(first.name, joined),
        identical=identical_share(joined),
        rms=float(joined.float().square().mean().sqrt()),
        input_rms=float(torch.cat([i.flatten() for i in inputs if i is not None]).float().square().mean().sqrt()),
        samples=joined.shape[0],
    )


def by_unit(tensor: Tensor | None) -> Tensor:
    """[N, C, H, W] → [N·H·W, C]; [N, T, F] → [N·T, F]; [N, F] stays."""
    assert tensor is not None
    if tensor.dim() >= 4 or (tensor.dim() == 3 and tensor.shape[1] < tensor.shape[2] and tensor.shape[1] in (1, 3)):
        return tensor.transpose(1, -1).reshape(-1, tensor.shape[1])
    return tensor.reshape(-1, tensor.shape[-1]) if tensor.dim() > 1 else tensor.reshape(-1, 1)


def _saturated(name: str, values: Tensor) -> float:
    if name.rstrip("_") == "tanh":
        return float((1 - values.square() < FLAT).float().mean())
    if name.rstrip("_") == "sigmoid":
        return float((4 * values * (1 - values) < FLAT).float().mean())
    return 0.0


def identical_share(values: Tensor) -> float:
    """Share of units whose output equals another unit's on every sample (to round-off); dead units do not count."""
    alive = values[:, (values != 0).any(0)].float()
    if alive.shape[1] < 2:
        return 0.0
    sample = alive[:64]
    scale = sample.abs().max().clamp_min(1e-30)
    codes = torch.unique((sample / scale * 1e5).round(), dim=1)
    return float(1 - (codes.shape[1] - 1) / (alive.shape[1] - 1))
