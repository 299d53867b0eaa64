"""The same samples drawn again: how much of an input is noise, and whether a label stays with its sample.

From `Problem.redraws` (the script's own data set, fetched again in another order). Averaging the draws turns the noise
down: what a linear reference gains by it tells whether the noise hides something. Costs at most two fits.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch

from unstuck.errors import NotApplicable, UnstuckError
from unstuck.probes.references import linear
from unstuck.probes.table import Array, Table, tabulate
from unstuck.problem import Batch, Problem

SAMPLES = 1024
NOISY = 0.2
"""Share of noise below which averaging is not tried."""


@dataclass(frozen=True)
class Redraw:
    """noise            variance between draws of a sample, as a share of the inputs' variance (0: inputs stay)
    contradictions   share of samples that kept their input to the last bit and got another class
    once, averaged   held-out accuracy of a linear model on single draws, and on averages of all draws (nan: not tried)
    """

    noise: float
    contradictions: float
    once: float
    averaged: float
    draws: int
    samples: int


def measure(problem: Problem) -> Redraw:
    """Raises UnstuckError where nothing about the samples is random, or they are no table."""
    if len(problem.redraws) < 2:
        raise NotApplicable("drawn again, the samples are the same")
    first = tabulate(problem, problem.redraws[0], SAMPLES)
    second = tabulate(problem, problem.redraws[1], SAMPLES, first.widths)
    if first.inputs.shape != second.inputs.shape:
        raise UnstuckError("drawn again, the samples have another shape")
    noise = _noise(first.inputs, second.inputs)
    once = averaged = float("nan")
    if noise > NOISY and first.classes and first.kind == "rows":
        once, averaged = _held_out(first), _held_out(tabulate(problem, calm(problem), SAMPLES, first.widths))
    return Redraw(noise, _contradictions(first, second), once, averaged, len(problem.redraws), len(first))


def _noise(first: Array, second: Array) -> float:
    spread = float(first.var(0).mean())
    return float(np.square(first - second).mean()) / 2 / spread if spread > 0 else 0.0


def _contradictions(first: Table, second: Table) -> float:
    kept = (first.inputs == second.inputs).all(1)
    if not first.classes or first.kind != "rows" or not kept.any() or _repeated(first.inputs) > 0.01:
        return 0.0
    return float((first.targets[kept] != second.targets[kept]).mean())


def _repeated(inputs: Array) -> float:
    """Share of rows that another row equals."""
    return 1 - len(np.unique(inputs, axis=0)) / max(len(inputs), 1)


def _held_out(table: Table) -> float:
    """Accuracy of a linear model on the last quarter of the rows, fitted to the others."""
    cut = len(table) * 3 // 4
    part, rest = table.part(slice(cut)), table.part(slice(cut, None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = linear(part).fit(part.inputs, part.targets)
    return float((model.predict(rest.inputs) == rest.targets).mean())


def calm(problem: Problem) -> tuple[Batch, ...]:
    """Batches of the samples that were drawn again, floating leaves averaged over the draws, others by majority."""
    found = []
    for batches in zip(*problem.redraws, strict=True):
        leaves = []
        for versions in zip(*batches, strict=True):
            stack = torch.stack(versions)
            leaves.append(stack.mean(0) if stack.is_floating_point() else stack.mode(0).values)
        found.append(tuple(leaves))
    return tuple(found)
