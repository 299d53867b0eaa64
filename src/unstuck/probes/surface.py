"""The loss on slices of parameter space through the point where a training stands, with the way it went drawn in.

    found = measure(problem, budget_s=20)
    found.slices, found.missing
    one = surface(problem, d1, d2, resolution=51)        # z[j][i] is the loss at θ + x[i]·d₁ + y[j]·d₂

A grid begins with 9 × 9 points and is refined, 17 × 17, 33 × 33, 65 × 65, as long as the next one fits in what is left
of the time; no point is computed twice. Values are wrong by rounding only, some 1e-6 of the loss in float32. They are
the loss on so many `samples`, which on others would differ by sampling.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from unstuck.curvature.batches import merged
from unstuck.errors import BadArgument, NotMeasurable, UnstuckError
from unstuck.probes.directions import coordinates, states
from unstuck.probes.plane import Plane
from unstuck.probes.views import Range, View, along_curvature, along_path, along_random
from unstuck.problem import Problem, samples_a_batch, spaced
from unstuck.sandbox import sandbox

SIZES = (9, 17, 33, 65)
"""Points along an axis: each grid holds the one before."""

VIEWS = (along_random, along_path, along_curvature)

SAMPLES, LEAST = 1024, 256
BUDGET_S, PATIENCE = 20.0, 4
"""Seconds, and times them that the smallest grids may take of one batch."""


@dataclass(frozen=True)
class Slice:
    """The loss over a plane: `z[j][i]` at θ + `x[i]`·d₁ + `y[j]`·d₂, on `samples`.

    path     where the training's states lie, (x, y) from first to last, projected on the plane
    share    of the variance of these states that lies in the plane (NaN where they do not differ)
    how      "stacked" or "one by one", and `why` not stacked
    """

    name: str
    x_name: str
    y_name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    z: tuple[tuple[float, ...], ...]
    path: tuple[tuple[float, float], ...]
    share: float
    how: str
    why: str
    samples: int
    seconds: float

    @property
    def resolution(self) -> int:
        """Points along an axis."""
        return len(self.x)


@dataclass(frozen=True)
class Slices:
    """The slices that could be had, and of each other one why not."""

    slices: tuple[Slice, ...]
    missing: tuple[str, ...]


def measure(problem: Problem, budget_s: float = BUDGET_S) -> Slices:
    """Slices through the last state, in about `budget_s` seconds.

    On up to 1024 training samples, 256 at least. Each point costs a forward pass, less what its first layers share;
    the directions 10 to 42 Hessian products. Raises NotMeasurable where the smallest grids would take several budgets.
    """
    began, found, missing = time.perf_counter(), [], []
    part = _affordable(merged(problem), budget_s)
    for place, view in enumerate(VIEWS):
        left = max(0.0, budget_s - (time.perf_counter() - began)) / (len(VIEWS) - place)
        deadline = time.perf_counter() + left
        try:
            found.append(_seen(part, view(part, left / 2), partial(refined, deadline=deadline)))
        except UnstuckError as error:
            missing.append(f"{view.__name__.removeprefix('along_')}: {error}")
    return Slices(tuple(found), tuple(missing))


def surface(
    problem: Problem, d1: Tensor, d2: Tensor, resolution: int = 51, reach: float | tuple[Range, Range] = 1.0,
    last: bool = True, samples: int | None = None,
) -> Slice:  # fmt: skip
    """The loss over the plane of `d1` and `d2`, vectors [n] in the order of `curvature.flat.Flat`, at `resolution` ×
    `resolution` points from −`reach` to `reach`, or from (low, high) to (low, high).

    `last`: through the last state, or the initial one. `samples`: on so many at least, whole batches; all if left out.
    Raises BadArgument for another shape and a resolution below 2, NotMeasurable where `d1` and `d2` are one.
    """
    if resolution < 2:
        raise BadArgument(f"surface: `resolution` must be 2 or more, got {resolution}")
    if d1.dim() != 1 or d1.shape != d2.shape:
        raise BadArgument(f"surface: `d1` and `d2` must be vectors [n], got {list(d1.shape)} and {list(d2.shape)}")
    x, y = reach if isinstance(reach, tuple) else ((-reach, reach), (-reach, reach))
    view = View("plane", "d₁", "d₂", torch.stack([d1, d2]), x, y)
    part = problem if samples is None else _sampled(problem, samples)
    return _seen(part, view, lambda loss, at: loss(grid(at, resolution)).view(resolution, resolution), last)


def refined(loss: Callable[[Tensor], Tensor], view: View, deadline: float, sizes: Sequence[int] = SIZES) -> Tensor:
    """Heights [y, x] on the finest grid that fits before a deadline of `time.perf_counter`; the first in any case."""
    known, each = torch.empty(0, 0, dtype=torch.float64), 0.0
    for size in sizes:
        fresh = torch.ones(size, size, dtype=torch.bool)
        if len(known):
            fresh[::2, ::2] = False
        began, count = time.perf_counter(), int(fresh.sum())
        if len(known) and began + count * each > deadline:
            break
        finer = torch.empty(size, size, dtype=torch.float64)
        if len(known):
            finer[::2, ::2] = known
        finer[fresh] = loss(grid(view, size)[fresh.flatten()])
        known, each = finer, (time.perf_counter() - began) / count
    return known


def grid(view: View, size: int) -> Tensor:
    """All points of a grid, row by row: [size · size, 2] in float64."""
    y, x = torch.meshgrid(_axis(view.y, size), _axis(view.x, size), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def _axis(ends: Range, size: int) -> Tensor:
    """Evenly spaced; the same numbers, to the last bit, as on each finer grid."""
    return ends[0] + (ends[1] - ends[0]) * (torch.arange(size, dtype=torch.float64) / (size - 1))


def _seen(problem: Problem, view: View, heights: Callable[[Plane, View], Tensor], last: bool = True) -> Slice:
    began = time.perf_counter()
    loss = Plane(problem, view.directions, last)
    way = states(problem, loss.flat) - loss.start
    path = coordinates(loss.directions, way)
    z = heights(loss, view)
    return Slice(
        view.name, view.x_name, view.y_name,
        tuple(_axis(view.x, len(z)).tolist()), tuple(_axis(view.y, len(z)).tolist()),
        tuple(map(tuple, z.tolist())),
        tuple((x, y) for x, y in path.tolist()), _share(loss.directions, way, path),
        loss.how, loss.why, loss.samples, time.perf_counter() - began,
    )  # fmt: skip


def _share(directions: Tensor, way: Tensor, path: Tensor) -> float:
    """Of the variance of states [k, n], what lies in the plane, where they have the coordinates `path` [k, 2]."""
    whole = float((way - way.mean(dim=0)).square().sum())
    moved = path - path.mean(dim=0)
    gram = (directions @ directions.T).double().cpu()
    return float((moved @ gram * moved).sum()) / whole if whole else math.nan


def _sampled(problem: Problem, samples: int) -> Problem:
    """The problem with so many of its training samples, at least: batches from all over the data."""
    count = -(-samples // samples_a_batch(problem))
    return replace(problem, data=spaced(problem.data, count), held_out=())


def _affordable(problem: Problem, budget_s: float) -> Problem:
    """The problem with so many samples that grids of the last size but one fit the budget."""
    model, batch = problem.twin(last=True), tuple(problem.data[0])
    with sandbox(0), torch.no_grad():
        problem.value(model, batch)
        began = time.perf_counter()
        problem.value(model, batch)
    each = (time.perf_counter() - began) / samples_a_batch(problem)
    if len(VIEWS) * SIZES[0] ** 2 * each * samples_a_batch(problem) > PATIENCE * budget_s:
        raise NotMeasurable(
            f"the loss of one batch takes {each * samples_a_batch(problem):.2g} s: {len(VIEWS)} surfaces of "
            f"{SIZES[0]} × {SIZES[0]} points cannot be had in {PATIENCE * budget_s:.0f} s"
        )
    count = budget_s / (len(VIEWS) * SIZES[-2] ** 2 * each)
    return _sampled(problem, int(min(SAMPLES, max(LEAST, count))))
