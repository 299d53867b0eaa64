"""The race: control, placebo and remedied copies from the initial state, on the same batches, inside a time budget.

First every lane runs with one seed; then the most promising go on with more seeds beside control and placebo
(successive halving over seeds). Scores are read in evaluation mode on batches that no lane trained on, and on training
batches. One process, plain loops; `run(lanes, …) -> Race` is the interface a faster executor keeps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from unstuck.criterion import Score
from unstuck.problem import Problem, spaced
from unstuck.race.verdict import judge
from unstuck.records import Curve, Verdict
from unstuck.remedies.remedy import Remedy
from unstuck.training import Training, exchangeable

SEEDS = 3
MAX_STEPS = 600
MIN_STEPS = 30
CHECKS = 5
PLACEBO_FACTOR = 1.01
"""The placebo trains with the learning rate 1 % higher: a change that should do nothing."""


@dataclass(frozen=True)
class Lane:
    """A named problem to train; `on` where its effect must show: "held-out", "train", or "loss" (held-out), after at
    least `least` steps."""

    name: str
    problem: Problem
    on: str = "held-out"
    least: int = 0


@dataclass
class Track:
    """What one lane with one seed left: steps of the checks, its scores there."""

    steps: list[int] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    samples: int = 0
    error: str = ""

    def scores(self, on: str) -> list[float]:
        """Of training batches, held-out ones, or (`loss`) the share of the held-out loss that is gone."""
        return {"train": self.train, "loss": self.loss}.get(on, self.held_out)


@dataclass(frozen=True)
class Race:
    """Verdict of every remedied lane by name, curves of all lanes, seconds taken."""

    verdicts: dict[str, Verdict]
    curves: tuple[Curve, ...]
    metric: str
    steps: int
    seconds: float
    control: float | None = None


def enter(problem: Problem, remedies: Sequence[tuple[str, Remedy]]) -> tuple[list[Lane], dict[str, str]]:
    """Lanes for control, placebo and each named remedy; remedies that cannot be applied are left out, with why."""
    lanes, refused = [Lane("control", problem)], {}
    if problem.optimizer is not None:
        lanes.append(Lane("placebo", replace(problem, optimizer=problem.optimizer.scaled(PLACEBO_FACTOR))))
    for name, remedy in remedies:
        try:
            lanes.append(Lane(name, remedy.apply(problem), remedy.on, remedy.steps))
        except Exception as error:  # a remedy meets a model it cannot change
            refused[name] = f"{type(error).__name__}: {error}"
    return lanes, refused


def run(
    lanes: Sequence[Lane], best: float, budget_s: float, tick: Callable[[str, float], None] = lambda what, share: None
) -> Race:
    """Train the lanes within `budget_s` seconds; `best` is the highest score known to be reachable on the data.

    `tick(what, share)` is called now and then with the share of the budget used.
    """
    start = time.perf_counter()
    deadline = start + budget_s
    mix = exchangeable(lanes[0].problem)
    steps = affordable(lanes[0].problem, len(lanes), budget_s)
    start_loss = Training(lanes[0].problem).score(lanes[0].problem.data, 4).loss
    tracks: dict[tuple[str, int], Track] = {}
    chosen = list(lanes)
    for seed in range(SEEDS):
        for place, lane in enumerate(chosen):
            left = deadline - time.perf_counter()
            if left <= 0 and (seed or place > 1):
                break
            tick(f"racing {lane.name}, seed {seed + 1}", (time.perf_counter() - start) / budget_s)
            tracks[lane.name, seed] = _train(lane, seed, mix, steps, deadline, start_loss)
        chosen = _promising(lanes, tracks) if seed == 0 else chosen
    return _settle(lanes, tracks, best, steps, time.perf_counter() - start)


def affordable(problem: Problem, lanes: int, budget_s: float) -> int:
    """Steps a lane may make: as many as the user's run where the budget allows, at least `MIN_STEPS`."""
    trial = Training(problem)
    trial.advance(1)
    start, used = time.perf_counter(), 3
    trial.advance(used)
    per_step = (time.perf_counter() - start) / used
    scoring = time.perf_counter()
    trial.score(problem.held_out or problem.data)
    per_check = 2 * (time.perf_counter() - scoring)
    runs = lanes + 2 * min(lanes, 4)
    room = budget_s / runs - CHECKS * per_check
    losses = problem.loop.losses
    broke = bool(losses) and not math.isfinite(losses[-1])  # how long it would have gone on is not known
    wanted = MAX_STEPS if broke else problem.loop.steps or problem.loop.backwards or MAX_STEPS
    return int(max(MIN_STEPS, min(MAX_STEPS, wanted, room / max(per_step, 1e-6))))


def _train(lane: Lane, seed: int, mix: bool, steps: int, deadline: float, start_loss: float) -> Track:
    track = Track()
    problem = lane.problem
    try:
        run = Training(problem, seed, mix)
        # A control that is broken from the first step has no loss to measure by: the lane's own first one serves.
        start_loss = start_loss if math.isfinite(start_loss) else run.score(spaced(problem.data, 4)).loss
        for check in range(1, CHECKS + 1):
            run.advance(steps * check // CHECKS - run.steps if not run.diverged else 0)
            held = run.score(problem.held_out or problem.data)
            track.steps.append(steps * check // CHECKS)
            track.held_out.append(_level(held, run.diverged, start_loss))
            track.train.append(_level(run.score(spaced(problem.data, 16)), run.diverged, start_loss))
            track.loss.append(_level(replace(held, metric="negative loss"), run.diverged, start_loss))
            track.samples = held.samples
            if time.perf_counter() > deadline + 2.0 and check < CHECKS:
                track.error = "out of time"
                break
    except Exception as error:  # the user's own model may raise anything on a changed copy
        track.error = f"{type(error).__name__}: {error}"
    return track


def _level(score: Score, diverged: bool, start_loss: float) -> float:
    """A score with a lowest value (accuracy 0, else −1) that what is not finite or diverged counts as.

    Where neither accuracy nor R² is known it is the share of the control's initial loss that is gone.
    """
    lowest = 0.0 if score.metric.endswith("accuracy") else -1.0
    value = 1 - score.loss / start_loss if score.metric == "negative loss" and start_loss else score.value
    return max(value, lowest) if math.isfinite(value) and not diverged else lowest


def _promising(lanes: Sequence[Lane], tracks: dict[tuple[str, int], Track]) -> list[Lane]:
    """Control, placebo, and the better half of the rest (three at least) after one seed."""
    fixed = [lane for lane in lanes if lane.name in {"control", "placebo"}]
    rest = [lane for lane in lanes if lane not in fixed and (lane.name, 0) in tracks and tracks[lane.name, 0].held_out]
    rest.sort(key=lambda lane: -_final(tracks[lane.name, 0], lane.on))
    return fixed + rest[: max(3, (len(rest) + 1) // 2)]


def _final(track: Track, on: str) -> float:
    scores = track.scores(on)
    return scores[-1] if scores else -1.0


def _settle(
    lanes: Sequence[Lane], tracks: dict[tuple[str, int], Track], best: float, steps: int, seconds: float
) -> Race:
    names = {"classes": "accuracy", "onehot": "accuracy", "binary": "accuracy", "multilabel": "accuracy"}
    task = lanes[0].problem.criterion.task
    scale = names.get(task, "R²" if task == "regression" else "share of the loss removed")
    scale = f"balanced {scale}" if lanes[0].problem.criterion.balanced else scale
    verdicts = {}
    for lane in lanes:
        if lane.name in {"control", "placebo"}:
            continue
        metric = "share of the held-out loss removed" if lane.on == "loss" else f"{lane.on} {scale}"
        if steps < lane.least:
            verdicts[lane.name] = Verdict(why=f"the race made {steps} steps, and this shows only after {lane.least}")
            continue
        ours = {s: t for (name, s), t in tracks.items() if name == lane.name and not t.error and t.steps}
        base = {s: t for (name, s), t in tracks.items() if name == "control" and not t.error and t.steps}
        calm = {s: t for (name, s), t in tracks.items() if name == "placebo" and not t.error and t.steps}
        shared = sorted(set(ours) & set(base))
        if not shared:
            why = next((t.error for (name, _), t in tracks.items() if name == lane.name and t.error), "out of time")
            verdicts[lane.name] = Verdict(why=why)
            continue
        final = [_final(ours[s], lane.on) for s in shared]
        control = [_final(base[s], lane.on) for s in shared]
        placebo = [_final(calm[s], lane.on) for s in shared if s in calm]
        reach = max(best, max(final)) if math.isfinite(best) and lane.on != "loss" else max(final)
        verdicts[lane.name] = judge(metric, control, final, placebo, reach, steps, ours[shared[0]].samples)
    base_scores = [_final(t, "held-out") for (name, _), t in tracks.items() if name == "control" and t.held_out]
    control_level = sum(base_scores) / len(base_scores) if base_scores else None
    return Race(verdicts, _curves(lanes, tracks), f"held-out {scale}", steps, seconds, control_level)


def _curves(lanes: Sequence[Lane], tracks: dict[tuple[str, int], Track]) -> tuple[Curve, ...]:
    curves = []
    for lane in lanes:
        runs = [t for (name, _), t in tracks.items() if name == lane.name and t.steps and not t.error]
        if not runs:
            continue
        scores = [t.scores(lane.on) for t in runs]
        columns = list(zip(*scores, strict=False))
        mean = tuple(sum(c) / len(c) for c in columns)
        low, high = tuple(map(min, columns)), tuple(map(max, columns))
        curves.append(Curve(lane.name, tuple(map(float, runs[0].steps)), mean, low, high))
    return tuple(curves)
