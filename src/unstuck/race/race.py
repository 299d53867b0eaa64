"""The race: control, placebo and remedied copies from the initial state, on the same batches, inside a time budget.

First every lane runs with one seed; then the most promising go on with more seeds beside control and placebo
(successive halving over seeds). All lanes of a seed advance together from check to check, so that when time is up they
are compared where all of them have been. Scores are read in evaluation mode on batches that no lane trained on, and on
training batches. One process, plain loops; `run(lanes, …) -> Race` is the interface a faster executor keeps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from msgspec.structs import replace as replaced

from unstuck.problem import Problem, spaced
from unstuck.race.track import ONE_BY_ONE, Lane, Track, scored_batches
from unstuck.race.verdict import judge
from unstuck.records import Curve, Verdict
from unstuck.remedies.remedy import Remedy
from unstuck.training import Training, exchangeable

SEEDS = 3
MAX_STEPS = 600
MIN_STEPS = 30
CHECKS = 4
DONE = 0.95
"""A lane that goes on from where the training was left is done at this share of its last score."""
PLACEBO_FACTOR = 1.01
"""The placebo trains with the learning rate 1 % higher: a change that should do nothing."""

Tick = Callable[[str, float], None]
Tracks = dict[tuple[str, int], Track]


@dataclass(frozen=True)
class Race:
    """Verdict of every remedied lane by name, curves of all lanes, seconds taken."""

    verdicts: dict[str, Verdict]
    curves: tuple[Curve, ...]
    metric: str
    steps: int
    seconds: float


def enter(problem: Problem, remedies: Sequence[tuple[str, Remedy]]) -> tuple[list[Lane], dict[str, str]]:
    """Lanes for control, placebo and each named remedy; remedies that cannot be applied are left out, with why."""
    lanes, refused = [Lane("control", problem)], {}
    if problem.optimizer is not None:
        lanes.append(Lane("placebo", replace(problem, optimizer=problem.optimizer.scaled(PLACEBO_FACTOR))))
    for name, remedy in remedies:
        try:
            early = remedy.against == "from the end"
            lanes.append(Lane(name, remedy.apply(problem), remedy.on, remedy.steps, early, remedy.pace))
        except Exception as error:  # a remedy meets a model it cannot change
            refused[name] = f"{type(error).__name__}: {error}"
    return lanes, refused


def together(races: Sequence[Race]) -> Race | None:
    """Several heats, each with a control of its own, as one race; None where there was none."""
    if not races:
        return None
    first, *later = races
    curves = [replaced(c, name=f"{c.name} (heat {k})") for k, race in enumerate(later, 2) for c in race.curves]
    verdicts = {name: verdict for race in races for name, verdict in race.verdicts.items()}
    seconds = sum(race.seconds for race in races)
    return Race(verdicts, (*first.curves, *curves), first.metric, first.steps, seconds)


def run(
    lanes: Sequence[Lane],
    best: float,
    budget_s: float,
    tick: Tick = lambda what, share: None,
    anew: bool = True,
) -> Race:
    """Train the lanes within `budget_s` seconds; `best` is the highest score known to be reachable on the data.

    `anew`: seeds may draw another start; False where the lanes go on from a state that was trained.

    `tick(what, share)` is called now and then with the share of the budget used. The first check of the first seed is
    made whatever it takes; after that the clock decides.
    """
    start = time.perf_counter()
    control = lanes[0].problem
    mix = anew and exchangeable(control)
    least = max(lane.least for lane in lanes)
    steps = affordable(control, len(lanes), budget_s - (time.perf_counter() - start), least)
    start_loss = Training(control).score(spaced(control.data, 4)).loss
    scored = frozenset(lane.on for lane in lanes)
    tracks: Tracks = {}
    chosen = list(lanes)
    for seed in range(SEEDS):
        if seed and time.perf_counter() - start > budget_s:
            break
        group = [Track(lane, seed, mix, start_loss, scored) for lane in chosen]
        tracks |= {(track.lane.name, seed): track for track in group}
        _advance(group, steps, start, budget_s, tick)
        chosen = _promising(lanes, tracks) if seed == 0 else chosen
    return _settle(lanes, tracks, best, steps, time.perf_counter() - start)


def standing(lanes: Sequence[Lane], best: float) -> Race:
    """The lanes as they stand, no step taken: for what a remedy does to a training that has ended.

    Costs one scoring of each lane; the interval is that of the scored samples. Draws no curves.
    """
    began = time.perf_counter()
    control = lanes[0].problem
    start_loss = Training(control).score(spaced(control.data, 4)).loss
    scored = frozenset(lane.on for lane in lanes)
    tracks = {(lane.name, 0): Track(lane, 0, False, start_loss, scored) for lane in lanes}
    for track in tracks.values():
        track.advance(0)
        track.end()
    found = _settle(lanes, tracks, best, 0, time.perf_counter() - began)
    return replace(found, verdicts={name: replaced(v, seeds=0) for name, v in found.verdicts.items()}, curves=())


def affordable(problem: Problem, lanes: int, budget_s: float, least: int = 0) -> int:
    """Steps a lane may make: as many as the user's run where the budget allows, at least `MIN_STEPS`.

    Where an effect shows only after `least` steps, one seed of so many goes before several of fewer.
    """
    trial = Training(problem)
    trial.advance(1)
    start, used = time.perf_counter(), 3
    trial.advance(used)
    per_step = (time.perf_counter() - start) / used
    scoring = time.perf_counter()
    trial.score(spaced(problem.held_out or problem.data, 2), 2)
    per_check = (time.perf_counter() - scoring) / 2 * 1.5 * scored_batches(problem)
    runs = lanes + 2 * min(lanes, 4)
    room, alone = budget_s / runs - CHECKS * per_check, 0.9 * budget_s / lanes - CHECKS * per_check
    losses = problem.loop.losses
    broke = bool(losses) and not math.isfinite(losses[-1])  # how long it would have gone on is not known
    wanted = MAX_STEPS if broke else problem.loop.steps or problem.loop.backwards or MAX_STEPS
    made = max(room / max(per_step, 1e-6), min(least, alone / max(per_step, 1e-6)))
    return int(max(MIN_STEPS, min(MAX_STEPS, wanted, made)))


def _advance(group: Sequence[Track], steps: int, start: float, budget_s: float, tick: Tick) -> None:
    for check in range(1, CHECKS + 1):
        for track in group:
            used = (time.perf_counter() - start) / budget_s
            if used > 1 and (check > 1 or track.seed):
                break
            tick(f"racing {track.lane.name.split(':')[0]}, seed {track.seed + 1}", used)
            track.advance(steps * check // CHECKS)
    for track in group:
        track.end()


def _promising(lanes: Sequence[Lane], tracks: Tracks) -> list[Lane]:
    """Control, placebo, and the better half of the rest (three at least) after one seed."""
    fixed = [lane for lane in lanes if lane.name in {"control", "placebo"}]
    rest = [lane for lane in lanes if lane not in fixed and tracks[lane.name, 0].steps]
    rest.sort(key=lambda lane: -tracks[lane.name, 0].scores()[-1])
    return fixed + rest[: max(3, (len(rest) + 1) // 2)]


def _settle(lanes: Sequence[Lane], tracks: Tracks, best: float, steps: int, seconds: float) -> Race:
    scale = _scale(lanes[0].problem)
    rest = [lane for lane in lanes if lane.name not in {"control", "placebo"}]
    verdicts = {lane.name: _verdict(lane, tracks, best, scale) for lane in rest}
    return Race(verdicts, _curves(lanes, tracks), f"held-out {scale}", steps, seconds)


def _scale(problem: Problem) -> str:
    """The common scale's name: accuracy, R², or the share of the loss removed."""
    if problem.criterion.task in {"classes", "onehot", "binary", "multilabel"}:
        return "balanced accuracy" if problem.criterion.balanced else "accuracy"
    return "R²" if problem.criterion.task == "regression" else "share of the loss removed"


def _verdict(lane: Lane, tracks: Tracks, best: float, scale: str) -> Verdict:
    """The lane against the control at the last check that both made, over the seeds that came so far; an `early` one at
    the first check at which it was done."""
    ours, base, calm = (_ran(tracks, name) for name in (lane.name, "control", "placebo"))
    shared = sorted(set(ours) & set(base))
    if not shared:
        return Verdict(why=tracks[lane.name, 0].error or tracks["control", 0].error or "out of time")
    made = {s: min(len(ours[s].steps), len(base[s].steps)) for s in shared}
    depth = _depth(made, sum(step < lane.least for step in ours[shared[0]].steps))
    shared = [s for s in shared if made[s] >= depth]
    depth = _done([ours[s].scores(lane.on)[:depth] for s in shared]) if lane.early else depth
    steps = ours[shared[0]].steps[depth - 1]
    if steps < lane.least:
        return Verdict(why=f"the race made {steps} steps, and this shows only after {lane.least}")
    final, control = ([runs[s].scores(lane.on)[depth - 1] for s in shared] for runs in (ours, base))
    placebo = [calm[s].scores(lane.on)[depth - 1] for s in shared if s in calm and len(calm[s].steps) >= depth]
    reach = max(best, max(final)) if math.isfinite(best) and lane.on != "loss" else max(final)
    return judge(_metric(lane, scale), control, final, placebo, reach, steps, ours[shared[0]].samples)


def _metric(lane: Lane, scale: str) -> str:
    if lane.on == "loss":
        return f"share of the {'validation' if lane.problem.validation else 'held-out'} loss removed"
    return f"held-out (one by one) {scale}" if lane.on == ONE_BY_ONE else f"{lane.on} {scale}"


def _depth(made: Mapping[int, int], hidden: int) -> int:
    """The check [1, …] to compare at, of the checks that each seed made: the first seed's last one; where time ended a
    later seed on its way, an earlier one that it made too, but none before half of the race or among the `hidden` ones,
    at which the effect cannot show yet. A seed more is worth more than the last steps: with two the interval is
    Student's for one or two degrees of freedom, five times as wide as with three."""
    last = made.get(0, 1)
    least = max((last + 1) // 2, min(hidden + 1, last))
    return max(range(least, last + 1), key=lambda check: (sum(m >= check for m in made.values()), check))


def _done(scores: Sequence[Sequence[float]]) -> int:
    """The first check [1, …] from which on the mean over seeds is at least `DONE` of what it is at the last one."""
    means = [sum(column) / len(column) for column in zip(*scores, strict=True)]
    short = [check for check, mean in enumerate(means, 1) if not mean >= DONE * means[-1]]
    return min(len(means), 1 + max(short, default=0)) if means[-1] > 0 else len(means)


def _ran(tracks: Tracks, name: str) -> dict[int, Track]:
    return {seed: t for (lane, seed), t in tracks.items() if lane == name and t.steps and not t.error}


def _curves(lanes: Sequence[Lane], tracks: Tracks) -> tuple[Curve, ...]:
    curves = []
    for lane in lanes:
        runs = list(_ran(tracks, lane.name).values())
        if not runs:
            continue
        columns = list(zip(*(t.scores() for t in runs), strict=False))
        mean = tuple(sum(c) / len(c) for c in columns)
        low, high = tuple(map(min, columns)), tuple(map(max, columns))
        curves.append(Curve(lane.name, tuple(map(float, runs[0].steps[: len(mean)])), mean, low, high))
    return tuple(curves)
