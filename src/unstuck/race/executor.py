"""Who trains a group of lanes: a stack, several stacks in threads, or plain loops, whichever five steps find fastest.

    heat = fastest(problems, seed=0)
    heat.executor, heat.why         # "stacked", "stacked 32 µs a lane and step; one by one 92; loops 190"
    heat.advance(100)
    heat.curves                     # one list of losses per lane

Small lanes are faster stacked (an operation serves all), large ones with torch's fused optimizers lane by lane, both
faster in a thread for each core where the model draws no random numbers. A model that vmap refuses goes in plain loops.
Torch's own threads are off meanwhile: inside of operations this small they mostly wait for each other (65 lanes of a
small network on two cores, one of them busy: 40 µs a lane and step without, 1 800 with them).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import torch

from unstuck.problem import Problem
from unstuck.race.stack import Stack, why_not
from unstuck.race.updates import has_rules
from unstuck.sandbox import sandbox
from unstuck.training import Training

WARM, TIMED = 2, 5
"""Steps before the clock runs, and on it."""

FEWEST = 2
"""Lanes that are worth a stack."""


class Heat(Protocol):
    """Lanes in training: `runs` in the order given, losses of each so far, and where they diverged."""

    runs: list[Training]
    curves: list[list[float]]

    def advance(self, steps: int) -> None:
        """Make so many steps in every lane that has not diverged."""
        ...

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone, given in ascending order."""
        ...


class Loops:
    """Plain loops, one lane after the other."""

    def __init__(self, problems: Sequence[Problem], seed: int, mix: bool) -> None:
        self.runs = [Training(problem, seed, mix) for problem in problems]

    @property
    def curves(self) -> list[list[float]]:
        """Losses of each lane."""
        return [run.losses for run in self.runs]

    def advance(self, steps: int) -> None:
        """Make so many steps in every lane."""
        with single_threaded():
            for run in self.runs:
                run.advance(steps)

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone."""
        self.runs = [self.runs[lane] for lane in lanes]


class Stacks:
    """Lanes dealt to `threads` stacks, each in a thread of its own."""

    def __init__(self, problems: Sequence[Problem], seed: int, mix: bool, together: bool, threads: int) -> None:
        share = math.ceil(len(problems) / threads)
        parts = [problems[k : k + share] for k in range(0, len(problems), share)]
        self.stacks = [Stack(part, seed, mix, together) for part in parts]
        self._before: list[list[float]] = [[] for _ in problems]
        self._read = [0 for _ in self.stacks]

    @property
    def runs(self) -> list[Training]:
        """Every lane's training."""
        return [run for stack in self.stacks for run in stack.runs]

    @property
    def curves(self) -> list[list[float]]:
        """Losses of each lane."""
        self._collect()
        return self._before

    def advance(self, steps: int) -> None:
        """Make so many steps in every lane."""
        with sandbox(), single_threaded():
            if len(self.stacks) == 1:
                self.stacks[0].run(steps)
                return
            with ThreadPoolExecutor(len(self.stacks)) as pool:
                list(pool.map(lambda stack: _alone(stack, steps), self.stacks))

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone; a stack that is left without any is dropped."""
        self._collect()
        self._before = [self._before[lane] for lane in lanes]
        first, kept = 0, []
        for stack in self.stacks:
            count = len(stack.runs)
            own = [lane - first for lane in lanes if first <= lane < first + count]
            first += count
            if own:
                stack.keep(own)
                kept.append(stack)
        self.stacks, self._read = kept, [len(stack.losses) for stack in kept]

    def _collect(self) -> None:
        """Read what the stacks have noted since the last time."""
        lane = 0
        for k, stack in enumerate(self.stacks):
            fresh = stack.losses[self._read[k] :]
            rows = torch.stack(fresh, 1).tolist() if fresh else [[] for _ in stack.runs]
            for losses in rows:
                self._before[lane] += losses
                lane += 1
            self._read[k] = len(stack.losses)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Torch's operations run in the calling thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _alone(stack: Stack, steps: int) -> None:
    """A thread begins with torch's defaults: gradients on, one thread for its operations."""
    torch.set_num_threads(1)
    with torch.enable_grad():
        stack.run(steps)


Make = Callable[[], "Loops | Stacks"]


def fastest(
    problems: Sequence[Problem], seed: int = 0, mix: bool = True, threads: int = 1
) -> tuple[Loops | Stacks, str, str]:
    """(the heat, its executor's name, why it was chosen) for problems of one signature, in `threads` threads at most.

    Every candidate makes seven steps on copies; the slowest costs as much as that many steps of plain loops.
    """
    reason = why_not(problems[0]) or ("" if len(problems) >= FEWEST else "one lane alone")
    if reason:
        return Loops(problems, seed, mix), "loops", reason
    times: dict[str, float] = {}
    refused = ""
    candidates = _candidates(problems, seed, mix, threads)
    for name, make in candidates.items():
        try:
            times[name] = _timed(make, len(problems))
        except Exception as error:  # whatever a model raises under vmap
            refused = refused or f"vmap refuses: {type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
    best = min(times, key=lambda name: times[name])
    said = "; ".join(f"{name} {1e6 * each:.0f} µs a lane and step" for name, each in sorted(
        times.items(), key=lambda item: item[1]))  # fmt: skip
    return candidates[best](), best, f"{said}{'; ' if refused else ''}{refused}"


def _candidates(problems: Sequence[Problem], seed: int, mix: bool, threads: int) -> dict[str, Make]:
    """By name; several threads only where no random number is drawn."""
    counts = [1, threads] if threads > 1 and len(problems) >= 2 * threads and not draws(problems[0]) else [1]
    ways = [True, False] if has_rules([Training(problem, seed, mix) for problem in problems]) else [False]
    found: dict[str, Make] = {}
    for count in counts:
        for together in ways:
            name = ("stacked" if together else "stacked, one by one") + (f", {count} threads" if count > 1 else "")
            found[name] = partial(Stacks, problems, seed, mix, together, count)
    found["loops"] = partial(Loops, problems, seed, mix)
    return found


def _timed(make: Make, lanes: int) -> float:
    """Seconds a lane and step."""
    heat = make()
    if isinstance(heat, Loops):
        heat.keep(range(min(lanes, 2)))
    heat.advance(WARM)
    began = time.perf_counter()
    heat.advance(TIMED)
    return (time.perf_counter() - began) / TIMED / len(heat.runs)


def draws(problem: Problem) -> bool:
    """True if the model draws random numbers in training (dropout, noise). One forward pass."""
    run = Training(problem)
    with sandbox(0):
        before = torch.get_rng_state()
        problem.value(run.model, run.next_batch())
        return not torch.equal(before, torch.get_rng_state())
