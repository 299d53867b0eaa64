"""A race over many settings: all begin, the better go on (successive halving), the best run again with other seeds.

    for seed, results, executors in contest(problem, settings, steps=500, seeds=3):
        max(results, key=lambda result: result.score).setting

All lanes see the same batches in the same order. After one and after three eighths of the steps a quarter of the
settings goes on (Jamieson & Talwalkar 2016), by the mean of its last two scores: a score of some hundred samples is off
by more than what tells good settings apart. What is left is trained to the end, once with each seed, so that settings
can be compared seed by seed. `full` trains all of them to the end with every seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import torch

from unstuck.criterion import prepared
from unstuck.errors import BadArgument
from unstuck.problem import Batch, Problem, batch_size
from unstuck.race.executor import fastest
from unstuck.race.grid import Setting, lanes
from unstuck.race.heats import Heat, single_threaded
from unstuck.race.track import SCORED, level
from unstuck.rows import Rows
from unstuck.training import Training, exchangeable

CHECKS = 8
RUNGS = (1, 3)
"""Checks after which one in `ETA` goes on."""
ETA, LAST = 4, 4
"""…but not fewer than `LAST`."""
RECENT = 2
"""Scores it is chosen by."""

Tick = Callable[[str, float], None]
Found = dict[tuple[int, int], tuple[str, str]]
"""Who trains lanes of a batch size and a number fastest, and why: with the next seed that is not asked again."""


@dataclass(frozen=True)
class Result:
    """What one setting did with one seed: at each check (`steps` made) the mean training loss since the one before, and
    the score on held-out data. Fewer checks than `CHECKS`: it was stopped, or diverged."""

    setting: Setting
    seed: int
    steps: tuple[int, ...]
    train: tuple[float, ...]
    held_out: tuple[float, ...]
    diverged: bool

    @property
    def score(self) -> float:
        """The last score."""
        return self.held_out[-1]


@dataclass
class _Heat:
    """A group of lanes with the places of its settings, what was noted of each so far, and which diverged."""

    places: list[int]
    heat: Heat
    notes: dict[int, tuple[list[int], list[float], list[float]]]
    gone: set[int] = field(default_factory=set)


def stage(
    problem: Problem, settings: Sequence[Setting], steps: int, seed: int, halve: bool, tick: Tick, found: Found
) -> tuple[list[Result], dict[str, str]]:
    """All settings with one seed; and who trained them, with the reason, by batch size. `found` grows by that."""
    with single_threaded():
        return _stage(problem, settings, steps, seed, halve, tick, found)


def _stage(
    problem: Problem, settings: Sequence[Setting], steps: int, seed: int, halve: bool, tick: Tick, found: Found
) -> tuple[list[Result], dict[str, str]]:
    mix = bool(seed) and exchangeable(problem)
    batches = _scored(problem)
    begin = Training(problem).score(batches, len(batches)).loss
    heats, executors = [], {}
    for places, problems in lanes(problem, settings):
        like = settings[places[0]].batch_size, len(places)
        trained, name, why = fastest(problems, batches, seed, mix, steps, known=found.get(like))
        found[like] = name, why
        executors[f"batches of {settings[places[0]].batch_size}"] = f"{name} ({why})"
        heats.append(_Heat(places, trained, {place: ([], [], []) for place in places}))
    for check in range(1, CHECKS + 1):
        now = steps * check // CHECKS
        for heat in heats:
            _advance(heat, now, begin)
            tick(f"seed {seed + 1}: {sum(len(h.places) for h in heats)} settings, step {now}", check / CHECKS)
        if halve and check in RUNGS:
            _keep_the_better(heats)
    gone = {place for heat in heats for place in heat.gone}
    notes = {place: note for heat in heats for place, note in heat.notes.items()}
    results = []
    for place, (made, train, held_out) in sorted(notes.items()):
        results.append(Result(settings[place], seed, tuple(made), tuple(train), tuple(held_out), place in gone))
    return results, executors


def _advance(heat: _Heat, now: int, begin: float) -> None:
    made = heat.notes[heat.places[0]][0][-1] if heat.places and heat.notes[heat.places[0]][0] else 0
    if not heat.places or now == made:
        return
    for place, found in zip(heat.places, heat.heat.check(now - made), strict=True):
        heat.gone |= {place} if found.diverged else set()
        steps, train, held_out = heat.notes[place]
        steps.append(now)
        whole = found.losses and not found.diverged
        train.append(math.fsum(found.losses) / len(found.losses) if whole else math.nan)
        held_out.append(level(found.score, found.diverged, begin))


def _keep_the_better(heats: Sequence[_Heat]) -> None:
    """One in `ETA` of all lanes, the best by their last scores; ties go to the one named first."""
    scores = {place: fmean(heat.notes[place][2][-RECENT:]) for heat in heats for place in heat.places}
    count = max(LAST, math.ceil(len(scores) / ETA))
    best = set(sorted(scores, key=lambda place: (-scores[place], place))[:count])
    for heat in heats:
        inside = [k for k, place in enumerate(heat.places) if place in best]
        if inside and len(inside) < len(heat.places):
            heat.heat.keep(inside)
        heat.places = [heat.places[k] for k in inside]


def survivors(results: Sequence[Result], steps: int) -> list[Setting]:
    """The settings that were trained to the end without diverging, best first."""
    done = [r for r in results if r.steps[-1] == steps and not r.diverged]
    return [r.setting for r in sorted(done, key=lambda r: -r.score)]


def contest(
    problem: Problem, settings: Sequence[Setting], steps: int = 500, seeds: int = 3, full: bool = False,
    tick: Tick = lambda what, share: None, known: Callable[[int], list[Result] | None] = lambda seed: None,
) -> Iterator[tuple[int, list[Result], dict[str, str]]]:  # fmt: skip
    """(seed, its results, who trained them) for one seed after another; what is `known` of a seed is not run again.

    Raises BadArgument for no setting, or `steps` or `seeds` below 1.
    """
    for name, number in (("steps", steps), ("seeds", seeds), ("settings", len(settings))):
        if number < 1:
            raise BadArgument(f"contest: `{name}` must be at least 1, got {number}")
    problem, chosen, found = prepared(problem), list(settings), Found()
    for seed in range(seeds):
        done, executors = known(seed), dict[str, str]()
        if done is None:
            def part(what: str, share: float, before: int = seed) -> None:
                tick(what, (before + share) / seeds)

            done, executors = stage(problem, chosen, steps, seed, not full and seed == 0, part, found)
        yield seed, done, executors
        if not full and seed == 0:
            chosen = survivors(done, steps)[:LAST]
            if not chosen:
                return


def _scored(problem: Problem) -> list[Batch]:
    """Held-out samples (training ones where there are none) in one large batch, where batches can be joined."""
    data = [tuple(batch) for batch in problem.held_out or problem.data]
    size = batch_size(data[0])
    rows = Rows.of(data, size)
    if rows is None or len(rows) < 2 * size:
        return data[: max(1, SCORED // max(size, 1))]
    count = min(len(rows), SCORED)
    return [tuple(batch) for batch in rows.batches(torch.arange(count), count)]
