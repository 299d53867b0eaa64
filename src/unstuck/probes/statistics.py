"""The statistics that batch normalization goes by: each batch's mean and variance, layer by layer, channel by channel.

    seen = collect(problem, by_batch(problem), problem.data)
    noise(seen["bn1"]).mean                         # spread of the batches' means, in standard deviations of a channel
    against(seen["bn1"], model.bn1).mean            # how far the running means lie from the batches'

Of n independent values the mean is off by σ/√n, the variance by σ²√(2/(n − 1)) (normal ones). A convolution's positions
are not independent, so both are measured, by drawing batches of each size from the recorded samples. A running mean
r ← (1 − m) r + m b keeps (1 − m)^t of its start after t batches, and √(m / (2 − m)) of a batch's noise for ever.
Standard errors are the jackknife's over batches (Efron 1982), as channels are correlated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unstuck.problem import Batch, Problem, samples_a_batch, training_rows
from unstuck.sandbox import sandbox

Norm = nn.modules.batchnorm._BatchNorm
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SAMPLES, FEWEST, MOST = 512, 4, 64
"""Drawn for each size: so many samples, in this many batches at least and at most."""
ALIVE = 1e-12
"""A channel with a smaller deviation is constant: nothing is normalized there."""


class Seen(NamedTuple):
    """What a layer saw: mean and variance (by n) of each batch [batches, channels], and n, its values a channel."""

    means: Tensor
    variances: Tensor
    values: int


@dataclass(frozen=True)
class Noise:
    """Spread from batch to batch of a layer's batch means, in standard deviations of a channel, and of its batch
    variances, as a share of the variance; mean over channels. `count`: values a channel; `worth`: how many independent
    values give a mean as steady."""

    size: int
    mean: float
    mean_error: float
    variance: float
    variance_error: float
    count: int
    batches: int

    @property
    def worth(self) -> float:
        """1 / mean²."""
        return 1 / self.mean**2 if self.mean > 0 else math.inf


@dataclass(frozen=True)
class Distance:
    """Running statistics against the batches': root mean square over channels of the means' distance in standard
    deviations; running variance over the batches' (geometric mean over channels)."""

    mean: float
    mean_error: float
    variance: float
    variance_error: float


@dataclass(frozen=True)
class Sized:
    """Noise of each layer by batch size; sizes that the network refuses, with why."""

    layers: Mapping[str, tuple[Noise, ...]]
    refused: tuple[tuple[int, str], ...] = ()


def norms(model: nn.Module) -> dict[str, Norm]:
    """The batch normalization layers by path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Norm)}


def by_batch(problem: Problem) -> nn.Module:
    """The model as it was left, in evaluation mode but for its normalization, which goes by the batch."""
    model = problem.twin(last=True).eval()
    for norm in norms(model).values():
        norm.train()
    return model


def collect(problem: Problem, model: nn.Module, batches: Sequence[Batch]) -> dict[str, Seen]:
    """What each layer sees of these batches, each use of it a row. One forward pass a batch; batches of other sizes
    than the first are left out."""
    found: dict[str, list[tuple[Tensor, Tensor, int]]] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            rows = args[0].detach().transpose(0, 1).flatten(1).double()
            found.setdefault(path, []).append((rows.mean(1), rows.var(1, unbiased=False), rows.shape[1]))

        return hook

    handles = [norm.register_forward_pre_hook(keep(path)) for path, norm in norms(model).items()]
    try:
        with torch.no_grad():
            for batch in batches:
                problem.value(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return {path: _seen(rows) for path, rows in found.items()}


def _seen(rows: Sequence[tuple[Tensor, Tensor, int]]) -> Seen:
    count = rows[0][2]
    alike = [(mean, variance) for mean, variance, n in rows if n == count]
    return Seen(torch.stack([m for m, _ in alike]), torch.stack([v for _, v in alike]), count)


def deviation(seen: Seen) -> Tensor:
    """Standard deviation of each channel over all batches [channels]: within them and between."""
    return (seen.variances.mean(0) + seen.means.var(0, unbiased=False)).sqrt()


def noise(seen: Seen, size: int = 0) -> Noise:
    """The noise of a layer's batch statistics; 0 where nothing varies, errors infinite below three batches."""
    sigma = deviation(seen)
    alive = sigma > ALIVE
    unbiased = seen.variances * (seen.values / max(seen.values - 1, 1))
    mean, mean_error = _spread((seen.means / sigma)[:, alive])
    variance, variance_error = _spread((unbiased / sigma.square())[:, alive])
    return Noise(size, mean, mean_error, variance, variance_error, seen.values, len(seen.means))


def _spread(rows: Tensor) -> tuple[float, float]:
    """Standard deviation over rows, the mean over columns; and its error by leaving out each row."""
    many = len(rows)
    if many < 2 or not rows.shape[1]:
        return 0.0, math.inf
    centred = rows - rows.mean(0)
    total = centred.square().sum(0)
    value = float((total / (many - 1)).sqrt().mean())
    if many < 3:
        return value, math.inf
    rest = total - centred.square() * (many / (many - 1))  # sum of squares about the mean of the others
    return value, _jackknife((rest / (many - 2)).clamp_min(0).sqrt().mean(1))


def _jackknife(parts: Tensor) -> float:
    """Standard error of a figure from its values with each batch left out [batches]."""
    many = len(parts)
    return float(((many - 1) / many * (parts - parts.mean()).square().sum()).sqrt())


def against(seen: Seen, norm: Norm) -> Distance | None:
    """The layer's running statistics against the average of these batches'; None where it keeps none or nothing varies.

    Running variances follow the batches' without bias (divided by n − 1), and are held against those.
    """
    sigma = deviation(seen)
    alive = sigma > ALIVE
    if norm.running_mean is None or norm.running_var is None or seen.values < 2 or not bool(alive.any()):
        return None
    off = (norm.running_mean.double() - seen.means)[:, alive] / sigma[alive]
    unbiased = seen.variances[:, alive] * (seen.values / (seen.values - 1))
    running = norm.running_var.double()[alive].clamp_min(ALIVE**2)

    def distance(rows: Tensor) -> Tensor:
        return rows.square().mean(-1).sqrt()

    def ratio(rows: Tensor) -> Tensor:
        return (running / rows.clamp_min(ALIVE**2)).log().mean(-1)

    log = float(ratio(unbiased.mean(0)))
    return Distance(
        float(distance(off.mean(0))),
        _jackknife(distance(_without_each(off))),
        math.exp(log),
        math.exp(log) * _jackknife(ratio(_without_each(unbiased))),
    )


def _without_each(rows: Tensor) -> Tensor:
    """Means over the rows but one [rows, columns]; of a single row there is nothing else."""
    return (rows.sum(0) - rows) / (len(rows) - 1) if len(rows) > 1 else rows


def by_size(problem: Problem, budget_s: float = math.inf) -> Sized:
    """The noise at `SIZES` and at the present one, in batches drawn anew from the training's samples, each sample once.

    Batches of a random order without repetition spread as independent ones do: the estimate has no bias, whatever part
    of the samples they use up. Up to `SAMPLES` samples or `FEWEST` batches are passed forward for each size; sizes that
    time does not suffice for are left out, the largest first. Nothing where the data cannot be cut into rows.
    """
    began, rows = time.perf_counter(), training_rows(problem)
    found: dict[str, list[Noise]] = {}
    refused = []
    for size in sorted({*SIZES, samples_a_batch(problem)}) if rows is not None else ():
        if rows is None or len(rows) < FEWEST * size or time.perf_counter() - began > budget_s:
            continue
        many = min(max(SAMPLES // size, FEWEST), MOST, len(rows) // size)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(size))[: many * size]
        try:
            with sandbox(0):
                seen = collect(problem, by_batch(problem), rows.batches(order, size))
        except Exception as error:  # one value a channel, or a size that the user's program has written down
            refused.append((size, f"{type(error).__name__}: {error}"))
            continue
        for path, one in seen.items():
            found.setdefault(path, []).append(noise(one, size))
    return Sized({path: tuple(noises) for path, noises in found.items()}, tuple(refused))


def left_of_start(momentum: float | None, updates: int) -> float:
    """Share of the first values in running statistics after so many batches: (1 − m)^t; none of a plain average."""
    return (0.0 if momentum is None else 1 - momentum) ** updates


def steadiness(momentum: float | None, updates: int) -> float:
    """Noise of a running mean, as a share of one batch's: √(m / (2 − m)) in the long run, 1/√t of a plain average."""
    return math.sqrt(momentum / (2 - momentum)) if momentum is not None else 1 / math.sqrt(max(updates, 1))


LEFT = 0.05
"""Of the start that running statistics may hold: a variance that begins at 1 and should be 1/20 is doubled by it."""
USUAL = 0.1
"""PyTorch's momentum."""


def fitting_momentum(updates: int) -> float:
    """`USUAL`, or where that leaves more than `LEFT` of the start after so many batches, the least that does not."""
    return max(USUAL, math.ceil(100 * (1 - math.pow(LEFT, 1 / max(updates, 1)))) / 100)
