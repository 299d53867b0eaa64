"""Who trains a group of lanes: a stack or plain loops, in this process or several, whichever five steps find fastest.

    heat, name, why = fastest(problems, scored)
    name, why                       # "stacked, 2 processes", "stacked 32 µs a lane and step; one by one 92; loops 190"
    heat.advance(100)
    heat.curves, heat.scores()      # the losses of each lane, and its score on the batches `scored`

Small lanes are faster stacked (an operation serves all), large ones with torch's fused optimizers lane by lane. A model
that vmap refuses goes in plain loops. Each process keeps to one thread of torch's: inside of operations this small its
threads mostly wait for each other (65 lanes of a small network, two cores, one of them busy: 40 µs a lane and step with
one thread, 1 800 with two).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import torch

from unstuck.criterion import Score
from unstuck.problem import Batch, Problem
from unstuck.race.forked import Forked
from unstuck.race.stack import Stack, why_not
from unstuck.race.traced import CHECKED
from unstuck.race.updates import has_rules
from unstuck.training import Training

WARM, TIMED = 2, 5
"""Steps before the clock runs, and on it."""

LONG = 10.0
"""Seconds a race must take for tracing to be tried: to load what traces takes one."""

FEWEST = 2
"""Lanes that are worth a stack, or a process."""


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

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone, given in ascending order."""
        ...


class Loops:
    """Plain loops, one lane after the other."""

    def __init__(self, problems: Sequence[Problem], scored: Sequence[Batch], seed: int = 0, mix: bool = True) -> None:
        self.runs, self.scored = [Training(problem, seed, mix) for problem in problems], scored

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

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone."""
        curves = self.curves
        self._curves = [curves[lane] for lane in lanes]
        self.stack.keep(lanes)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Torch's operations run in the calling thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


Make = Callable[[Sequence[Problem]], Loops | Stacked]


def fastest(
    problems: Sequence[Problem], scored: Sequence[Batch], seed: int = 0, mix: bool = True, steps: int = 0,
    cores: int | None = None,
) -> tuple[Heat, str, str]:  # fmt: skip
    """(the heat, its executor's name, why it was chosen) for problems of one signature and so many `steps` ahead.

    Every candidate makes seven steps on copies (plain loops with two lanes). `cores`: processes at most; left out, as
    many as this one may run on, where processes can be forked.
    """
    reason = why_not(problems[0]) or ("" if len(problems) >= FEWEST else "one lane alone")
    times: dict[str, float] = {}
    makes: dict[str, Make] = {"loops": partial(Loops, scored=scored, seed=seed, mix=mix)}

    def tried(name: str, make: Make) -> str:
        """Times a candidate; why it fails, if it does."""
        try:
            times[name] = _timed(make(problems[: FEWEST if name == "loops" else None]))
            makes[name] = make
        except Exception as error:  # whatever a model raises under vmap
            return f"vmap refuses: {type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
        return ""

    if not reason:
        tried("loops", makes["loops"])
        stacked = partial(Stacked, scored=scored, seed=seed, mix=mix)
        for together in (True, False) if has_rules(problems) else (False,):
            reason = reason or tried(_named(together), partial(stacked, together=together))
        if not reason and len(problems) * steps * min(times.values()) > LONG:
            for together in (True, False) if has_rules(problems) else (False,):
                tried(_named(together, True), partial(stacked, together=together, traced=True))
    best = min(times, key=lambda name: times[name]) if times else "loops"
    count = processes(problems, cores)
    there = f"{best}, {count} processes"
    if count > 1:
        times[best] = times.get(best) or _timed(makes[best](problems[:FEWEST]))
        times[there] = _timed(_dealt(problems, makes[best], count))
    said = "; ".join(f"{name} {1e6 * each:.0f} µs" for name, each in sorted(times.items(), key=lambda item: item[1]))
    why = "; ".join(filter(None, (f"a lane and step takes {said}" if said else "", reason)))
    if count > 1 and times[there] < times[best]:
        return _dealt(problems, makes[best], count), there, why
    return makes[best](problems), best, why


def _named(together: bool, traced: bool = False) -> str:
    """As a report says it: `stacked, one by one, traced`."""
    return f"stacked{'' if together else ', one by one'}{', traced' if traced else ''}"


def processes(problems: Sequence[Problem], cores: int | None = None) -> int:
    """How many processes the lanes may be dealt to; 1 where forking is not possible, or not safe (a GPU in use)."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in problems[0].model.parameters())
    if not hasattr(os, "fork") or not on_cpu or torch.cuda.is_initialized():
        return 1
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(there if cores is None else cores, len(problems) // FEWEST))


def _dealt(problems: Sequence[Problem], make: Make, count: int) -> Forked:
    share = math.ceil(len(problems) / count)
    parts = [problems[k : k + share] for k in range(0, len(problems), share)]
    return Forked([partial(make, part) for part in parts], [len(part) for part in parts])


def _timed(heat: Heat) -> float:
    """Seconds a lane and step. What is traced is checked a few times before it runs alone."""
    heat.advance(WARM + CHECKED)
    lanes = len(heat.curves)
    began = time.perf_counter()
    heat.advance(TIMED)
    return (time.perf_counter() - began) / TIMED / lanes
