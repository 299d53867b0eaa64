"""Batch normalization: each layer's statistics and mode, and what the batch, its size and evaluation mode do to it.

On the same samples, with dropout off, the model as it was left is scored three times: normalized by each batch (as in
training), by its running statistics (as in evaluation), and by running statistics recomputed from the data
(*recalibrated*). If recalibration closes the gap between the first two, the statistics are to blame. A fourth score,
in larger batches of the same samples, shows what the noise of small batches costs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unstuck.criterion import Score, score
from unstuck.problem import Batch, Problem, batch_size
from unstuck.rows import Rows
from unstuck.sandbox import sandbox

Norm = nn.modules.batchnorm._BatchNorm
SAMPLES = 512
LARGE = 64


@dataclass(frozen=True)
class Layer:
    """One BatchNorm layer. `fresh_start`, `fresh_end`: its statistics are those of a new layer (0 and 1), at the start
    and where the training was left; `noise`: spread of the batches' means, in standard deviations of a channel;
    `count`: values a channel is normalized over in one batch."""

    path: str
    trains: bool
    tracks: bool
    momentum: float | None
    fresh_start: bool
    fresh_end: bool
    noise: float
    count: int


@dataclass(frozen=True)
class Normalization:
    """All layers; scores of the trained model by batch, by running and by recalibrated statistics, and in batches of
    `LARGE` (None: not measurable); paths of the dropout layers that drop something. `strays`: forward passes in
    training mode that belong to no backward of the loop (the layers count their batches), which moved the running
    statistics."""

    layers: tuple[Layer, ...]
    dropout: tuple[str, ...]
    batch: int
    by_batch: Score | None = None
    by_running: Score | None = None
    recalibrated: Score | None = None
    by_large: Score | None = None
    strays: int = 0


def measure(problem: Problem) -> Normalization:
    """Four to five forward passes over up to `SAMPLES` samples; nothing where the model has no BatchNorm."""
    start, end = problem.twin(), problem.twin(last=True)
    dropout = tuple(n for n, m in end.named_modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0)
    size = problem.loop.batch_size or batch_size(problem.data[0])
    if not _norms(end):
        return Normalization((), dropout, size)
    data = problem.data[: max(2, SAMPLES // max(size, 1))]
    with sandbox(0), torch.no_grad():
        spreads = _spreads(problem, _by_batch(problem), data)
        layers = tuple(_layer(path, norm, _norms(start), spreads) for path, norm in _norms(end).items())
        return Normalization(
            layers,
            dropout,
            size,
            score(problem, _by_batch(problem), data, training=True),
            score(problem, problem.twin(last=True), data),
            _recalibrated(problem, data),
            _large(problem, data, size),
            _strays(problem, start, end),
        )


def _norms(model: nn.Module) -> dict[str, Norm]:
    return {path: module for path, module in model.named_modules() if isinstance(module, Norm)}


def _by_batch(problem: Problem) -> nn.Module:
    """The model as it was left, in evaluation mode but for its normalization, which goes by the batch."""
    model = problem.twin(last=True).eval()
    for norm in _norms(model).values():
        norm.train()
    return model


def _layer(path: str, norm: Norm, start: dict[str, Norm], spreads: dict[str, tuple[float, int]]) -> Layer:
    noise, count = spreads.get(path, (float("nan"), 0))
    first = start.get(path, norm)
    return Layer(
        path,
        first.training,
        norm.track_running_stats and norm.running_mean is not None,
        norm.momentum,
        _fresh(first),
        _fresh(norm),
        noise,
        count,
    )


def _fresh(norm: Norm) -> bool:
    """True if the running statistics are still 0 and 1."""
    if norm.running_mean is None or norm.running_var is None:
        return True
    return not bool(norm.running_mean.any()) and bool((norm.running_var == 1).all())


def _spreads(problem: Problem, model: nn.Module, data: Sequence[Batch]) -> dict[str, tuple[float, int]]:
    """Per layer: standard deviation of its batches' means over that of its values (mean over channels), and count."""
    seen: dict[str, list[tuple[Tensor, Tensor, int]]] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            rows = args[0].detach().transpose(0, 1).flatten(1).double()
            seen.setdefault(path, []).append((rows.mean(1), rows.square().mean(1), rows.shape[1]))

        return hook

    handles = [norm.register_forward_pre_hook(keep(path)) for path, norm in _norms(model).items()]
    for batch in data:
        problem.value(model, batch)
    for handle in handles:
        handle.remove()
    return {path: _spread(moments) for path, moments in seen.items()}


def _spread(moments: list[tuple[Tensor, Tensor, int]]) -> tuple[float, int]:
    means, squares = torch.stack([m for m, _, _ in moments]), torch.stack([s for _, s, _ in moments])
    total = (squares.mean(0) - means.mean(0).square()).clamp_min(0).sqrt()
    alive = total > 1e-12
    noise = (means.std(0)[alive] / total[alive]).mean() if len(means) > 1 and bool(alive.any()) else torch.tensor(0.0)
    return float(noise), moments[0][2]


def _strays(problem: Problem, start: nn.Module, end: nn.Module) -> int:
    """Batches that a layer counted beyond those of the recorded losses (0 where the layers do not count)."""
    trial = copy.deepcopy(start)
    with torch.enable_grad():
        loss = problem.value(trial, problem.data[0])
        if loss.requires_grad:  # checkpointed parts run, and count, once more
            loss.mean().backward()  # type: ignore[no-untyped-call]
    before, once, after = ({p: _counted(n) for p, n in _norms(m).items()} for m in (start, trial, end))
    own = {p: problem.loop.backwards * (once[p] - before[p]) for p in before if once[p] > before[p]}
    return max((after.get(p, 0) - before[p] - count for p, count in own.items()), default=0)


def _counted(norm: Norm) -> int:
    return int(norm.num_batches_tracked) if norm.num_batches_tracked is not None else 0


def _recalibrated(problem: Problem, data: Sequence[Batch]) -> Score:
    """Score in evaluation mode after the running statistics were recomputed as plain means over these batches."""
    model = _by_batch(problem)
    for norm in _norms(model).values():
        norm.momentum = None
        norm.reset_running_stats()
    for batch in data:
        problem.value(model, batch)
    return score(problem, model, data)


def _large(problem: Problem, data: Sequence[Batch], size: int) -> Score | None:
    """Score by batch statistics in batches of `LARGE` of the same samples; None where they cannot be batched anew."""
    rows = Rows.of(data, size) if size < LARGE else None
    if rows is None or len(rows) < 2 * LARGE:
        return None
    batches = rows.batches(torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)), LARGE)
    changed = replace(problem, data=batches)
    return score(changed, _by_batch(changed), batches, training=True)
