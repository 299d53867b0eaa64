"""The batch clock: time of an update and of an epoch, and memory, as functions of the batch size, on this machine.

A larger batch makes fewer updates an epoch. Where an update of it costs no more (the machine works on its samples side
by side) it is free; beyond, an update's time grows with its samples and an epoch gains nothing. Batches of 1, 2, 4, …
samples, of the present size and of all samples are timed on a copy, up to the largest that fits time and memory:

    clock = measure(problem)
    clock.flat, clock.best                                # 64, 512
    [(t.size, t.seconds, clock.epoch(t)[0]) for t in clock.timings]

An update is what `probes.update` says. Batches are made of recorded samples, which may stand in one several times: that
changes no kernel's work, though memory that is read at random (a large embedding) is met a little warmer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unstuck.probes.sweep import Sweep, Timing
from unstuck.probes.update import Update
from unstuck.problem import Batch, Problem, batch_size, distinct, samples_a_batch, script_batch, spaced
from unstuck.rows import Rows
from unstuck.sandbox import sandbox
from unstuck.tape import tensors_in

BUDGET_S = 3.0
FLAT = 1.5
SOURCES = 8
FLOOR, SINGLE = 0.01, 0.1
"""Relative errors in the fit: at least this (a line is no closer a model), and of a time measured once."""


@dataclass(frozen=True)
class Line:
    """seconds = fixed + per_sample · size, each with its standard error."""

    fixed: float
    fixed_error: float
    per_sample: float
    per_sample_error: float


@dataclass(frozen=True)
class Throughput:
    """Timings by ascending size, and what they hold for.

    refused      (size, why) where the program does not run: batch normalization over one sample, a size written down
    present      the script's own batch size
    samples      N, the training samples that are known (held-out ones are the script's too): all, or where more than
                 were drawn exist a part, so that an epoch of the script may be longer in proportion
    accumulate   passes per update: it sees `size` times so many samples
    optimizer    class of the optimizer that steps; "" where none does, and `without` says why
    limit, why   what ended the sizes: samples, time, memory, or rows (recorded batches that cannot be cut)
    """

    timings: tuple[Timing, ...]
    refused: tuple[tuple[int, str], ...]
    present: int
    samples: int
    accumulate: int
    optimizer: str
    without: str
    device: str
    threads: int
    limit: str
    why: str

    def epoch(self, timing: Timing, samples: int = 0) -> tuple[float, float]:
        """Seconds per `samples` samples (N where 0), and their standard error: updates · time of one.

        Fractions of an update count as such; a loader's ragged last batch costs up to one update more.
        """
        updates = (samples or self.samples) / (timing.size * self.accumulate)
        return updates * timing.seconds, updates * timing.error

    def seconds(self, size: int) -> float:
        """Time of an update of `size` samples: as measured, else by the line (nan where there is none)."""
        known = next((timing.seconds for timing in self.timings if timing.size == size), None)
        line = self.line
        return known if known is not None else line.fixed + line.per_sample * size if line else float("nan")

    @property
    def noise(self) -> float:
        """Standard error of a time as a share of it, the median over sizes: above 0.1 the machine was too busy."""
        known = sorted(t.error / t.seconds for t in self.timings if t.repeats > 1)
        return known[len(known) // 2] if known else float("nan")

    @property
    def flat(self) -> int:
        """The largest size up to which every update costs at most `FLAT` times one of the smallest size."""
        most, found = FLAT * self.timings[0].seconds, self.timings[0].size
        for timing in self.timings:
            if timing.seconds > most:
                break
            found = timing.size
        return found

    @property
    def best(self) -> int:
        """The size with the shortest epoch; neighbours within its error do as well."""
        return min(self.timings, key=lambda timing: timing.seconds / timing.size).size

    @property
    def line(self) -> Line | None:
        """Time of an update as fixed cost plus cost of a sample, by least squares; None of a single size.

        Weights are 1 / error², of errors no smaller than `FLOOR` of the time; where the times scatter about the line
        by more than that, χ² / (sizes − 2) > 1, standard errors are larger by its root. Sizes that fill caches or
        threads only in part bend the line: then both figures are averages over the sizes that were timed.
        """
        return _line(self.timings)


def measure(problem: Problem, budget_s: float = BUDGET_S) -> Throughput:
    """Time updates of a copy, within `budget_s` seconds, at all batch sizes that fit.

    Each time is the median of updates spread over the whole measurement, with its standard error (`sweep.median`). A
    machine that is busy all along shows in them as it does in the training, and several threads that wait for each
    other on busy cores can cost a hundredfold. Torch's number of threads stays as it is. Costs two updates at the
    present size and at one sample, whatever the budget.

    Raises NotMeasurable where the program does not run at its own batch size.
    """
    with sandbox(0):
        rows, present, samples = _known(problem)
        update = Update(problem)

        def batch_of(size: int) -> Batch:
            return tuple(problem.data[0]) if rows is None else rows.fetch(torch.arange(size) % len(rows))

        sweep = Sweep(update, batch_of, budget_s)
        sweep.begin(present)
        limit, why = "rows", "the recorded batches cannot be cut into samples"
        if rows is not None:
            limit, why = sweep.climb(_sizes(present, samples // problem.loop.accumulate))
        sweep.repeat()
        update.release()
    return Throughput(
        sweep.timings(), tuple(sorted(sweep.refused.items())), present, samples, problem.loop.accumulate,
        type(update.optimizer).__name__ if update.optimizer else "", update.without, str(update.device),
        torch.get_num_threads(), limit, why or f"an update of all {samples} samples known",
    )  # fmt: skip


def _sizes(present: int, largest: int) -> list[int]:
    """1, 2, 4, … and the largest (the present one at least), and the present one."""
    largest = max(present, largest)
    powers = {2**k for k in range(largest.bit_length())}
    return sorted({*powers, present, largest})


def _known(problem: Problem) -> tuple[Rows | None, int, int]:
    """Samples to make batches of (None where they cannot be cut), the present size, and how many samples there are."""
    if problem.rows is not None:
        rows, present = problem.rows, script_batch(problem)
        every = list(map(hash, rows.contents()))
        return rows, present, _once([every[k : k + present] for k in range(0, len(every), present)])
    batches = distinct((*problem.data, *problem.held_out))
    present = samples_a_batch(problem)
    cut = _rows(batches, present)
    return cut, present, _once([_hashes(batch, cut) for batch in batches])


def _rows(batches: Sequence[Batch], size: int) -> Rows | None:
    """Some of the samples; None where they cannot be cut (or hide in containers)."""
    chosen = spaced(batches, SOURCES)
    if any(tensors_in(leaf) for leaf in chosen[0] if not isinstance(leaf, Tensor)):
        return None
    return Rows.of(chosen, size)


def _hashes(batch: Batch, cut: Rows | None) -> Sequence[int]:
    """A number for each sample of a batch, equal for equal ones; where it cannot be cut, all differ."""
    place = next((place for place, fold in enumerate(cut.folds) if fold > 0), None) if cut else None
    size = batch_size(batch) if cut is None or place is None else len(batch[place]) // cut.folds[place]
    rows = Rows.of([batch], size) if cut else None
    return [hash(content) for content in rows.contents()] if rows else [hash((id(batch), k)) for k in range(size)]


def _once(batches: Sequence[Sequence[int]]) -> int:
    """Number of samples in batches; those that come again in later ones (of further epochs) count once.

    Equal samples within batches tell that equal ones are not the same: then all count.
    """
    total, inside = sum(map(len, batches)), sum(len(set(batch)) for batch in batches)
    return max(len(set().union(*batches)), *map(len, batches)) if inside > 0.99 * total else total


def _line(timings: Sequence[Timing]) -> Line | None:
    if len(timings) < 2:
        return None
    seconds = np.array([t.seconds for t in timings])
    errors = np.array([t.error for t in timings])
    errors = np.maximum(np.where(np.isnan(errors), SINGLE * seconds, errors), FLOOR * seconds)
    rows = np.stack([np.ones(len(timings)), [t.size for t in timings]], 1) / errors[:, None]
    solution = np.linalg.lstsq(rows, seconds / errors, rcond=None)[0]
    scatter = np.square(rows @ solution - seconds / errors).sum() / max(len(timings) - 2, 1)
    spread = np.sqrt(max(1.0, scatter) * np.diag(np.linalg.inv(rows.T @ rows)))
    return Line(float(solution[0]), float(spread[0]), float(solution[1]), float(spread[1]))
