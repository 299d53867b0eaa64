"""Who trains a group of lanes: a stack or plain loops, in this process or several, whichever a few steps find fastest.

    heat, name, why = fastest(problems, scored)
    name, why                       # "stacked, 2 processes", "stacked 32 µs a lane and step; one by one 92; loops 190"
    heat.advance(100)
    heat.curves, heat.scores()      # the losses of each lane, and its score on the batches `scored`

Small lanes are faster stacked (an operation serves all), large ones with torch's fused optimizers lane by lane. A model
that vmap refuses goes in plain loops. Each process keeps to one thread of torch's: inside of operations this small its
threads mostly wait for each other (65 lanes of a small network, two cores, one of them busy: 40 µs a lane and step with
one thread, 1 800 with two).

Where there are several processes, they build the candidates for their own lanes and time them all at once, as they are
to run; who is chosen goes on from there, put back to its start. So to choose costs little more than to begin.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch

from unstuck.problem import Batch, Problem
from unstuck.race.forked import Forked
from unstuck.race.heats import FEWEST, Heat, Loops, Stacked
from unstuck.race.stack import why_not
from unstuck.race.updates import has_rules

LONG = 0.3
"""Seconds of plain loops from which it pays to record a stack's step: that takes as long as ten steps."""

LOOPS = "loops"

WAYS = {
    f"stacked{'' if together else ', one by one'}{', traced' if traced else ''}": (together, traced)
    for traced in (False, True) for together in (True, False)
}  # fmt: skip
"""What stacks are called, and what they are: moved all at once or one by one, recorded or not."""


class Trial:
    """Some lanes before it is decided who trains them, and from then on."""

    def __init__(self, problems: Sequence[Problem], scored: Sequence[Batch], seed: int, mix: bool) -> None:
        self.problems, self.scored, self.seed, self.mix = problems, scored, seed, mix
        self.stacked: dict[bool, Stacked] = {}
        self.heat: Heat | None = None

    def timed(self, name: str) -> float | str:
        """Seconds a lane and step; or why this one cannot do it."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that vmap is slow with an operation shows in the time
                few = self.problems[:FEWEST]
                return Loops(few, self.scored).timed() if name == LOOPS else self._stack(name).timed()
        except Exception as error:  # whatever a model raises under vmap
            return f"vmap refuses: {type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"

    def choose(self, name: str) -> None:
        """Let this one train the lanes."""
        loops = name == LOOPS
        self.heat = Loops(self.problems, self.scored, self.seed, self.mix) if loops else self._stack(name)
        self.stacked = {}

    def _stack(self, name: str) -> Stacked:
        """The stack of this name: one that is there already moves its lanes in that way from now on."""
        together, traced = WAYS[name]
        there = self.stacked.get(traced)
        if there is None:
            self.stacked[traced] = Stacked(self.problems, self.scored, self.seed, self.mix, together, traced)
        else:
            there.stack.use(together)
        return self.stacked[traced]

    def __getattr__(self, name: str) -> object:
        return getattr(self.heat, name)


def fastest(
    problems: Sequence[Problem], scored: Sequence[Batch], seed: int = 0, mix: bool = True, steps: int = 0,
    cores: int | None = None, known: tuple[str, str] | None = None,
) -> tuple[Heat, str, str]:  # fmt: skip
    """(the heat, its executor's name, why it was chosen) for problems of one signature and so many `steps` ahead.

    `cores`: processes at most; left out, as many as this one may run on, where processes can be forked. `known`: the
    name and the reason that were found for lanes like these; nothing is timed then.
    """
    count, trial = processes(problems, cores), partial(Trial, scored=scored, seed=seed, mix=mix)
    if known is not None:
        name, why = known
        return _begun(problems, trial, count, name), name, why
    reason = why_not(problems[0]) or ("" if len(problems) >= FEWEST else "one lane alone")
    if reason and count == 1:
        return _begun(problems, trial, count, LOOPS), LOOPS, reason
    lanes = _dealt(problems, trial, count) if count > 1 else trial(problems)
    times, reason = _times(problems, lanes, count, steps, reason)
    best = min(times, key=lambda name: times[name]) if times else LOOPS
    said = "; ".join(f"{name} {1e6 * each:.0f} µs" for name, each in sorted(times.items(), key=lambda item: item[1]))
    why = "; ".join(filter(None, (f"a lane and step takes {said}" if said else "", reason)))
    return _begun(problems, trial, count, best, lanes), best, why


def _times(
    problems: Sequence[Problem], lanes: Trial | Forked, count: int, steps: int, reason: str
) -> tuple[dict[str, float], str]:
    """Seconds a lane and step of each executor; and why lanes cannot be stacked."""
    suffix, times = _apart(count), dict[str, float]()

    def tried(name: str, alone: bool = False) -> str:
        first = 1 if alone else None
        found = lanes.each("timed", name, first=first) if isinstance(lanes, Forked) else [lanes.timed(name)]
        why = next((why for why in found if isinstance(why, str)), "")
        if not why:
            times[name if alone else f"{name}{suffix}"] = max(map(float, found)) / (1 if alone else count)
        return why

    failed = tried(LOOPS, alone=True)
    long = not failed and len(problems) * steps * times[LOOPS] > LONG
    for name, (together, traced) in WAYS.items():
        if traced == long and (has_rules(problems) or not together):
            reason = reason or failed or tried(name)
    if count > 1 and not failed:
        if reason or times[LOOPS] / count < min(times.values()):
            tried(LOOPS)
        apart = {name: each for name, each in times.items() if name.endswith(suffix)}
        tried(min(apart, key=lambda name: apart[name]).removesuffix(suffix), alone=True)
    return times, reason


def _begun(
    problems: Sequence[Problem], trial: Callable[[Sequence[Problem]], Trial], count: int, name: str,
    lanes: Trial | Forked | None = None,
) -> Heat:  # fmt: skip
    """The heat of this name, made of the `lanes` that were tried where they can go on."""
    suffix = _apart(count)
    if suffix and name.endswith(suffix):
        forked = lanes if isinstance(lanes, Forked) else _dealt(problems, trial, count)
        forked.each("choose", name.removesuffix(suffix))
        return forked
    alone = lanes if isinstance(lanes, Trial) else trial(problems)
    alone.choose(name)
    assert alone.heat is not None
    return alone.heat


def _apart(count: int) -> str:
    """What a name ends with where lanes are dealt to processes."""
    return f", {count} processes" if count > 1 else ""


def processes(problems: Sequence[Problem], cores: int | None = None) -> int:
    """How many processes the lanes may be dealt to; 1 where forking is not possible, or not safe (a GPU in use)."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in problems[0].model.parameters())
    if not hasattr(os, "fork") or not on_cpu or torch.cuda.is_initialized():
        return 1
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(there if cores is None else cores, len(problems) // FEWEST))


def _dealt(problems: Sequence[Problem], trial: Callable[[Sequence[Problem]], Trial], count: int) -> Forked:
    """Dealt in turn: neighbours, which are as good as each other, go to different processes, so that halving leaves
    them all about as many lanes."""
    places = [range(k, len(problems), count) for k in range(count)]
    parts = [partial(trial, [problems[k] for k in own]) for own in places]
    return Forked(parts, [len(own) for own in places], [k for own in places for k in own])
