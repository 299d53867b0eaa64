"""How noisy the gradient is along the training: the gradient noise scale, and with it the critical batch size.

Where the training began, along the way and where it was left, the gradients of batches that share no sample tell the
covariance of single samples' gradients and the length of the mean gradient (`linalg.noise_scale`). Gradients are those
of the loss before clipping and before the optimizer rescales them; dropout's noise is in them.

    noise = measure(problem)
    noise.points[-1].scale.low, noise.points[-1].scale.high     # samples
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unstuck.errors import NotMeasurable
from unstuck.linalg.moments import of
from unstuck.linalg.noise_scale import FEWEST, NoiseScale, of_gradients, of_products, of_steps, step
from unstuck.linalg.ratio import Ratio
from unstuck.loop import State
from unstuck.probes.gradients import gradient
from unstuck.problem import (
    Batch,
    Problem,
    batch_size,
    distinct,
    load_state,
    samples_a_batch,
    script_batch,
    training_rows,
)
from unstuck.sandbox import sandbox

BATCHES = 48
"""Gradients at each point: the standard error of tr Σ is then √(2/47) of it at most, where one direction has all."""

LARGE = 64
"""Samples in each, where there are enough: what the estimate rests on is their number in all."""

BUDGET_S = 2.0
ALONG = 2
"""Points along the way, between start and end."""

FREE = 8
"""Watched steps from which on their own noise scale is worth a word."""

HELD = 2**28
"""Bytes of gradients that are kept; of larger networks each gradient is made twice."""


@dataclass(frozen=True)
class NoisePoint:
    """The noise scale after `step` updates, from `gradients` batches of `size` samples. One gradient each, or two."""

    step: int
    estimate: NoiseScale
    gradients: int
    size: int

    @property
    def scale(self) -> Ratio:
        """tr Σ / ‖G‖² in samples, with its interval at 95 %."""
        return self.estimate.scale


@dataclass(frozen=True)
class Noise:
    """The noise scale along the training, in the order of the steps, and samples in one update as it is now.

    `free`: over the steps that were watched, from the gradients that the script itself adds up; None where it adds up
    none (or clips, or scales them), or too few were seen.
    """

    points: tuple[NoisePoint, ...]
    batch: int
    free: NoiseScale | None = None

    @property
    def typical(self) -> Ratio:
        """The median over the points of scale and of both ends: what a batch size fixed for the whole training sees."""
        scales = [point.scale for point in self.points]
        return Ratio(*(statistics.median_low(getattr(s, part) for s in scales) for part in Ratio._fields))


def measure(problem: Problem, budget_s: float = BUDGET_S) -> Noise:
    """Up to four times 48 gradients, on copies. Fewer points, then fewer gradients, where time is short.

    Raises NotMeasurable where there are fewer than four batches of one size that share no sample, and where no gradient
    is finite.
    """
    batches, size = _batches(problem)
    states: list[tuple[int, State | None]] = [(0, None), *_along(problem), (problem.loop.steps, problem.last)]
    states = states if problem.last and problem.loop.steps else states[:1]
    points: list[NoisePoint] = []
    deadline = time.perf_counter() + budget_s
    with sandbox(0):
        for place in _ends_first(len(states)):
            at, state = states[place]
            room = (deadline - time.perf_counter()) / (2 if len(points) == 0 and len(states) > 1 else 1)
            if len(points) >= min(2, len(states)) and room <= 0:
                break
            model = problem.twin()
            if state is not None:
                load_state(model, state)
            point = _point(problem, model, at, batches, size, time.perf_counter() + room)
            points += [point] if point is not None else []
    if not points:
        raise NotMeasurable("no gradient along the training is finite")
    kept = tuple(sorted(points, key=lambda point: point.step))
    return Noise(kept, script_batch(problem) * max(problem.loop.accumulate, 1), _free(problem))


def _free(problem: Problem) -> NoiseScale | None:
    """From what the script's own accumulation gave away: no gradient is made for it."""
    size, parts = samples_a_batch(problem), problem.loop.parts
    if len(parts) < FREE:
        return None
    several = size * problem.loop.accumulate
    return of_steps(of(torch.stack([step(first**2, size, mean**2, several) for _, first, mean in parts])))


def _batches(problem: Problem) -> tuple[tuple[Batch, ...], int]:
    """Batches of one size without a common sample: mixed rows where the data can be cut, else batches as they are."""
    rows = training_rows(problem)
    if rows is None:
        size = samples_a_batch(problem)
        batches = tuple(b for b in distinct(problem.data) if batch_size(b) == batch_size(problem.data[0]))[:BATCHES]
    else:
        size = max(least(problem), min(max(samples_a_batch(problem), LARGE), len(rows) // BATCHES))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(problem.seed))
        batches = rows.batches(order[: BATCHES * size], size) if len(rows) >= FEWEST * size else ()
    if len(batches) < FEWEST:
        raise NotMeasurable(
            f"the gradient noise scale needs {FEWEST} batches that share no sample, {len(batches)} are at hand"
        )
    return batches, size


def least(problem: Problem) -> int:
    """Samples a batch must have: batch normalization has no variance of one, and a poor one of few."""
    normalized = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in problem.model.modules())
    return min(samples_a_batch(problem), 16) if normalized else 1


def _along(problem: Problem) -> list[tuple[int, State]]:
    """Snapshots evenly along the way."""
    inner = [pair for pair in problem.loop.snapshots if 0 < pair[0] < problem.loop.steps]
    places = {round((k + 1) * len(inner) / (ALONG + 1)) for k in range(ALONG)}
    return [inner[place] for place in sorted(places) if place < len(inner)]


def _ends_first(count: int) -> list[int]:
    return list(dict.fromkeys((0, count - 1, *range(count))))


def _point(
    problem: Problem, model: nn.Module, at: int, batches: tuple[Batch, ...], size: int, deadline: float
) -> NoisePoint | None:
    """The noise scale at one state; None where the gradient is not finite."""
    first = _flat(problem, model, batches[0], 0)
    if not math.isfinite(float(first.norm())):
        return None
    if len(batches) * first.numel() * first.element_size() <= HELD:
        held = [first, *_until(deadline, _gradients(problem, model, batches))]
        return NoisePoint(at, of_gradients(held, size), len(held), size)
    total, squares = first.double(), [float(first.norm()) ** 2]
    halfway = time.perf_counter() + (deadline - time.perf_counter()) / 2
    for found in _until(halfway, _gradients(problem, model, batches)):
        total += found
        squares.append(float(found.norm()) ** 2)
    inner = [float(_flat(problem, model, batch, k).double() @ total) for k, batch in enumerate(batches[: len(squares)])]
    return NoisePoint(at, of_products(squares, inner, size), len(inner), size)


def _gradients(problem: Problem, model: nn.Module, batches: tuple[Batch, ...]) -> Iterator[Tensor]:
    """Of all batches but the first."""
    for place, batch in enumerate(batches[1:], 1):
        yield _flat(problem, model, batch, place)


def _until(deadline: float, found: Iterator[Tensor]) -> Iterator[Tensor]:
    """As many as time allows, and `FEWEST` with the one that is there already."""
    for count, gradient_ in enumerate(found, 2):
        yield gradient_
        if count >= FEWEST and time.perf_counter() > deadline:
            return


def _flat(problem: Problem, model: nn.Module, batch: Batch, seed: int) -> Tensor:
    """The gradient as one vector; random numbers of the model by the batch's place."""
    torch.manual_seed(seed)
    return torch.cat([g.flatten().float() for g in gradient(problem, model, batch)[1].values()])
