"""Times and memory of updates at several batch sizes, visited in rounds, within limits of time and memory.

    sweep = Sweep(Update(problem), batch_of, budget_s=3.0)
    sweep.begin(32), sweep.climb([1, 2, 4, 8, 16]), sweep.repeat()
    sweep.timings()

Each round goes over the sizes, up and down turn about, so that a machine that is busier for a while is met by all of
them. A visit is an update that is not timed (the first one counts the memory) and one that is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unstuck.curvature.memory import available, out_of_memory
from unstuck.errors import NotMeasurable, UnstuckError
from unstuck.probes.update import Update
from unstuck.problem import Batch

ROUNDS = 30
VISIT = 1 / 12
"""Of the budget, what one visit may take: visits of half the size take half as long and so on, those of all sizes
together twice as long as the largest, so that some six rounds fit."""
AGAIN = 3
"""So often is a size timed before it is believed to be the last: a late time or two must not end the climb."""
FREE = 0.5
"""Of the memory that is free, what an update may need: what kernels use as scratch is not in the estimate."""


@dataclass(frozen=True)
class Timing:
    """Updates of batches of `size` samples: median in seconds, its standard error (nan of a single one), memory."""

    size: int
    seconds: float
    error: float
    repeats: int
    memory: int


class Sweep:
    """Times by batch size, round by round, until the deadline."""

    def __init__(self, update: Update, batch_of: Callable[[int], Batch], budget_s: float) -> None:
        self.update, self.batch_of = update, batch_of
        self.began, self.budget_s = time.perf_counter(), budget_s
        self.times: dict[int, list[float]] = {}
        self.memory: dict[int, int] = {}
        self.refused: dict[int, str] = {}

    def begin(self, present: int) -> None:
        """The present size; raises NotMeasurable where it does not run."""
        try:
            self._visit(present)
        except Exception as error:  # whatever the user's program raises
            raise NotMeasurable(f"an update at the batch size of {present} failed: {_said(error)}") from error

    def climb(self, sizes: Sequence[int]) -> tuple[str, str]:
        """The other sizes, upwards, until one would not fit; what ended them, and why ("": nothing did)."""
        for size in sizes:
            if size in self.times:
                continue
            ended = self._unfit(size)
            if not ended and self._tried(size):
                ended = "memory", f"memory ran out at {size} samples"
            if ended:
                return ended
        return "samples", ""

    def repeat(self) -> None:
        """Further rounds, each only if it fits by the median times so far."""
        order = sorted(self.times)
        for _ in range(1, ROUNDS):
            if 2 * sum(median(self.times[size])[0] for size in order) > self._left():
                break
            order.reverse()
            if any(self._left() < 0 or self._tried(size) for size in order):
                break  # in the midst of a round: the machine is busier, or somebody else took the memory

    def timings(self) -> tuple[Timing, ...]:
        """What was measured, by ascending size."""
        return tuple(
            Timing(size, *median(times), len(times), self.memory[size]) for size, times in sorted(self.times.items())
        )

    def _left(self) -> float:
        return self.began + self.budget_s - time.perf_counter()

    def _visit_s(self) -> float:
        return min(VISIT * self.budget_s, self._left())

    def _visit(self, size: int) -> None:
        batch = self.batch_of(size)
        self.update.reset()
        if size in self.memory:
            self.update(batch)
        else:
            self.memory[size] = self.update.memory(batch)
        self.times.setdefault(size, []).append(self.update.seconds(batch))

    def _tried(self, size: int) -> bool:
        """Visit a size; True where memory ran out. What else goes wrong the first time is noted as refused."""
        try:
            self._visit(size)
        except Exception as error:  # whatever the user's program raises
            if out_of_memory(error):
                return True
            if size not in self.times:
                self.refused[size] = _said(error)
        return False

    def _unfit(self, size: int) -> tuple[str, str] | None:
        """What a size would exceed, going by the next smaller one, whose time and memory grow at most in proportion."""
        below = max((known for known in self.times if known < size), default=0)
        if not below:
            return None
        ratio = size / below
        for _ in range(len(self.times[below]), AGAIN):
            once = 2 * min(self.times[below])
            if ratio * once > self._visit_s() and once < self._left():
                self._tried(below)
        seconds, memory, free = ratio * min(self.times[below]), ratio * self.memory[below], _free(self.update.device)
        if 2 * seconds > self._visit_s():
            return "time", f"an update of {size} samples would take up to {seconds:.2g} s"
        if memory > FREE * free:
            return "memory", f"an update of {size} samples would need up to {memory / 1e9:.2g} of {free / 1e9:.2g} GB"
        return None


def _free(device: torch.device) -> int:
    """Bytes that can be had: what the device has free, and on CUDA what torch holds of it unused."""
    cuda = device.type == "cuda"
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device) if cuda else 0
    return available(device) + held


def _said(error: Exception) -> str:
    words = str(error).strip().split("\n")[0]
    return words if isinstance(error, UnstuckError) else f"{type(error).__name__}: {words}"


def median(times: Sequence[float]) -> tuple[float, float]:
    """Median m of x₁ ≤ … ≤ x_n and its standard error, (x_u − x_l) / 2 at ranks (n + 1)/2 ∓ √n/2, interpolated.

    For normal times that is about 1.25 s/√n, a few late ones do not move it; nan of a single time. Times are taken as
    independent: a load that lasts for many rounds is not in it.
    """
    n = len(times)
    ranks = (n + 1) / 2 + math.sqrt(n) / 2 * np.array([-1.0, 0.0, 1.0])
    low, middle, high = np.interp(ranks, np.arange(1, n + 1), sorted(times)).tolist()
    return middle, (high - low) / 2 if n > 1 else math.nan
