"""Lanes in training behind one face: as a stack, or in plain loops.

    heat = Stacked(problems, scored)
    heat.timed()                    # seconds a lane and step; it stands at its start again
    heat.advance(100)
    heat.curves, heat.scores()      # the losses of each lane, and its score on the batches `scored`
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from unstuck.criterion import Score
from unstuck.problem import Batch, Problem
from unstuck.race.stack import Stack
from unstuck.race.traced import CHECKED
from unstuck.training import Training

WARM, TIMED = 2, 5
"""Steps before the clock runs, and on it."""

FEWEST = 2
"""Lanes that are worth a stack, or a process; and that plain loops are timed with."""


@dataclass(frozen=True)
class Noted:
    """How a lane stands: whether its loss stopped being finite, its score, its losses since it was asked last."""

    diverged: bool
    score: Score
    losses: list[float]


class Heat(Protocol):
    """Lanes in training, in the order they were given."""

    @property
    def curves(self) -> list[list[float]]:
        """The losses of each lane so far."""
        ...

    @property
    def diverged(self) -> list[bool]:
        """Lanes whose loss stopped being finite."""
        ...

    def scores(self) -> list[Score]:
        """Each lane's score on the batches it was made with."""
        ...

    def advance(self, steps: int) -> None:
        """Make so many steps in every lane that has not diverged."""
        ...

    def check(self, steps: int) -> list[Noted]:
        """Make so many steps, and say how each lane stands. One question: its answer may come from other processes."""
        ...

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone, given in ascending order."""
        ...


class Loops:
    """Plain loops, one lane after the other."""

    def __init__(self, problems: Sequence[Problem], scored: Sequence[Batch], seed: int = 0, mix: bool = True) -> None:
        self.runs, self.scored = [Training(problem, seed, mix) for problem in problems], scored

    def timed(self) -> float:
        """Seconds a lane and step, of a few steps that other copies make."""
        few = Loops([run.problem for run in self.runs[:FEWEST]], self.scored)
        return _clocked(few, WARM) / len(few.runs)

    @property
    def curves(self) -> list[list[float]]:
        """The losses of each lane."""
        return [run.losses for run in self.runs]

    @property
    def diverged(self) -> list[bool]:
        """Lanes whose loss stopped being finite."""
        return [run.diverged for run in self.runs]

    def scores(self) -> list[Score]:
        """Each lane's score."""
        with single_threaded():
            return [run.score(self.scored, len(self.scored)) for run in self.runs]

    def advance(self, steps: int) -> None:
        """Make so many steps in every lane."""
        with single_threaded():
            for run in self.runs:
                run.advance(steps)

    def check(self, steps: int) -> list[Noted]:
        """Make so many steps, and say how each lane stands."""
        return _checked(self, steps)

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone."""
        self.runs = [self.runs[lane] for lane in lanes]


class Stacked:
    """One stack."""

    def __init__(
        self, problems: Sequence[Problem], scored: Sequence[Batch], seed: int = 0, mix: bool = True,
        together: bool = True, traced: bool = False,
    ) -> None:  # fmt: skip
        self.stack, self.scored = Stack(problems, seed, mix, together, traced), scored
        self._curves: list[list[float]] = [[] for _ in problems]
        self._read = 0

    def timed(self) -> float:
        """Seconds a lane and step, of a few steps that are undone. What is traced is checked before it runs alone."""
        with single_threaded(), self.stack.trial():
            return _clocked(self, WARM + CHECKED) / len(self.stack.runs)

    @property
    def curves(self) -> list[list[float]]:
        """The losses of each lane."""
        fresh = self.stack.losses[self._read :]
        for curve, losses in zip(self._curves, torch.stack(fresh, 1).tolist() if fresh else [], strict=False):
            curve += losses
        self._read += len(fresh)
        return self._curves

    @property
    def diverged(self) -> list[bool]:
        """Lanes whose loss stopped being finite."""
        return [run.diverged for run in self.stack.runs]

    def scores(self) -> list[Score]:
        """Each lane's score."""
        with single_threaded():
            return [run.score(self.scored, len(self.scored)) for run in self.stack.runs]

    def advance(self, steps: int) -> None:
        """Make so many steps in every lane."""
        with single_threaded():
            self.stack.advance(steps)

    def check(self, steps: int) -> list[Noted]:
        """Make so many steps, and say how each lane stands."""
        return _checked(self, steps)

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone."""
        curves = self.curves
        self._curves = [curves[lane] for lane in lanes]
        self.stack.keep(lanes)


def _checked(heat: Loops | Stacked, steps: int) -> list[Noted]:
    made = [len(curve) for curve in heat.curves]
    heat.advance(steps)
    lanes = zip(heat.diverged, heat.scores(), heat.curves, made, strict=True)
    return [Noted(diverged, score, curve[first:]) for diverged, score, curve, first in lanes]


def _clocked(heat: Loops | Stacked, warm: int) -> float:
    """Seconds a step. On a CPU those that its thread ran: what else runs on the machine takes its share of any."""
    heat.advance(warm)
    run = heat.runs[0] if isinstance(heat, Loops) else heat.stack.runs[0]
    on_cpu = all(parameter.device.type == "cpu" for parameter in run.model.parameters())
    clock = time.thread_time if on_cpu else time.perf_counter
    began = clock()
    heat.advance(TIMED)
    return (clock() - began) / TIMED


@contextmanager
def single_threaded() -> Iterator[None]:
    """Torch's operations run in the calling thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
