"""The race behind the chapter on normalization: the network as it is, and normalized in other ways.

    found = raced(problem, evidence.normalization, budget_s=20.0)
    found.present.score, found.lanes[0].verdict.outcome

All lanes begin where the user's training began and make as many updates of the same batches (larger ones in the lane of
larger batches); they are scored on held-out samples in evaluation mode. Two of them train as the present network does:
`exact-statistics` computes the running statistics anew at the end, `freeze-statistics` half way, and goes on with
these. A placebo (a rate 1 % higher) tells what chance does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from unstuck.chapters.plan import FASTER, STEPS, Plan, affordable
from unstuck.errors import NotMeasurable
from unstuck.probes.normalization import Normalization
from unstuck.probes.statistics import LEFT, fitting_momentum, left_of_start, norms
from unstuck.problem import Batch, Problem, samples_a_batch, spaced
from unstuck.race import track
from unstuck.race.heats import single_threaded
from unstuck.race.race import PLACEBO_FACTOR
from unstuck.race.trials import Level, Outcome, level, seconds_a_step, trials
from unstuck.race.verdict import judge
from unstuck.records import Verdict
from unstuck.remedies.batches import larger_batch
from unstuck.remedies.insert_normalization import insert_batch_norm, insert_layer_norm
from unstuck.remedies.normalization import (
    averaged,
    exact_statistics,
    frozen_statistics,
    group_norm,
    groups_of,
    layer_norm,
    other_momentum,
    unfreeze_batchnorm,
)
from unstuck.remedies.remedy import Remedy
from unstuck.rows import Rows
from unstuck.rules.batchnorm_train_eval_gap import misset
from unstuck.training import Training, exchangeable

Tick = Callable[[str, float], None]
ENOUGH, TIMES = 32, 2
"""Samples in a larger batch: so many at least (below 16 to 32 BatchNorm's error rises, Wu & He 2018), and so many times
the present ones."""
EXACT, FROZEN = "exact-statistics", "freeze-statistics"
DEARER = 1.5
"""What averaging statistics adds to the time of a short training: up to a hundred forward passes."""
TIMED = 3
"""Updates that each network's time is taken from."""
PRESENT, PLACEBO = "as it is", "placebo"


@dataclass(frozen=True)
class Lane:
    """One way to normalize: score on held-out samples and training loss over seeds, and the verdict on the score."""

    name: str
    remedy: Remedy | None
    score: Level
    loss: Level
    verdict: Verdict


@dataclass(frozen=True)
class Raced:
    """The present network and the others, in the order they were entered, after `plan.steps` updates; `refused`: what
    could not be trained, with why."""

    plan: Plan
    metric: str
    present: Lane
    lanes: tuple[Lane, ...]
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Entry:
    name: str
    remedy: Remedy | None
    problem: Problem
    seconds: float


def remedies(problem: Problem, found: Normalization) -> tuple[Remedy, ...]:
    """What may help a network with BatchNorm, the smallest changes first (of batches that are large already a larger
    one last); or one without any normalization."""
    if not found.layers:
        return insert_batch_norm(problem), insert_layer_norm(problem)
    odd = [layer for layer in found.layers if layer.trains and layer.tracks and misset(layer)]
    tracks = any(layer.tracks for layer in found.layers)
    several = any(groups_of(norm.num_features) > 1 for norm in norms(problem.model).values())
    frozen = tuple(layer.path for layer in found.layers if not layer.trains)
    present = samples_a_batch(problem)
    larger = larger_batch(problem, max(ENOUGH, TIMES * present))
    return (
        *((exact_statistics(problem),) if tracks else ()),
        *((unfreeze_batchnorm(problem, frozen),) if frozen else ()),
        *((other_momentum(fitting_momentum(odd[0].updates)),) if odd else ()),
        *((larger,) if present < ENOUGH else ()),
        *((group_norm(problem),) if several else ()),
        layer_norm(problem),
        *((frozen_statistics(problem),) if tracks and len(frozen) < len(found.layers) else ()),
        *((larger,) if present >= ENOUGH else ()),
    )


def raced(problem: Problem, found: Normalization, budget_s: float, tick: Tick = lambda what, share: None) -> Raced:
    """Race all that can be trained, in about `budget_s` seconds; what is entered last is left out where that is short.

    Raises NotMeasurable where no optimizer is known, where the present network does not train on a copy (one value a
    channel), where nothing else does, or where the time does not suffice.
    """
    if problem.optimizer is None or not problem.loop.stepping:
        raise NotMeasurable("no optimizer steps were seen")
    try:
        seconds = seconds_a_step(problem, TIMED)
    except Exception as error:  # one value a channel; or whatever the user's model raises
        raise NotMeasurable(f"the network does not train on a copy: {type(error).__name__}: {error}") from error
    most = max(problem.loop.steps or STEPS[0], STEPS[-1])
    if affordable(FASTER * 3 * seconds, 1, budget_s, most) is None:  # the network, its placebo and one other
        raise NotMeasurable(f"an update takes {seconds:.2g} s: no race of normalizations fits {budget_s:.0f} s")
    entries, refused = _entered(problem, seconds, remedies(problem, found))
    for count in range(len(entries), 2, -1):
        total = sum(entry.seconds for entry in entries[:count])
        plan = affordable(FASTER * total, 1, budget_s, most)  # networks of other forms share no stack
        if plan is not None:
            tick(f"racing {count - 1} ways to normalize over {plan.steps} updates", 0.5)
            late = tuple((entry.name, "no time was left for it") for entry in entries[count:])
            return _judged(problem, entries[:count], refused + late, plan)
    raise NotMeasurable("; ".join(f"{name}: {why}" for name, why in refused) or f"no race fits {budget_s:.0f} s")


def _entered(
    problem: Problem, seconds: float, tried: Sequence[Remedy]
) -> tuple[list[_Entry], tuple[tuple[str, str], ...]]:
    """The present network, its placebo, and what can make a few steps on a copy."""
    assert problem.optimizer is not None
    twin = replace(problem, optimizer=problem.optimizer.scaled(PLACEBO_FACTOR))
    entries, refused = [_Entry(PRESENT, None, problem, seconds), _Entry(PLACEBO, None, twin, seconds)], []
    for remedy in tried:
        if remedy.id in {EXACT, FROZEN}:
            entries.append(_Entry(remedy.id, remedy, problem, DEARER * seconds))
            continue
        try:
            changed = remedy.apply(problem)
            entries.append(_Entry(remedy.id, remedy, changed, seconds_a_step(changed, TIMED)))
        except Exception as error:
            refused.append((remedy.id, str(error)))
    return entries, tuple(refused)


def _judged(problem: Problem, entries: Sequence[_Entry], refused: tuple[tuple[str, str], ...], plan: Plan) -> Raced:
    mix, scored = exchangeable(problem), _scored(problem)
    start = Training(problem).score(spaced(problem.data, 4)).loss
    plain = [entry for entry in entries if entry.name not in {EXACT, FROZEN}]
    outcomes, _ = trials([(_paced(e.problem, plan.steps), plan.steps) for e in plain], plan.seeds, scored, mix)
    runs = {entry.name: found for entry, found in zip(plain, outcomes, strict=True)}
    for entry in entries:
        if entry.name not in runs:
            case = _paced(entry.problem, plan.steps)
            runs[entry.name] = [_afterwards(case, entry.name, plan.steps, s, mix, scored) for s in range(plan.seeds)]
    values = {name: [track.level(run.score, run.diverged, start) for run in found] for name, found in runs.items()}
    best, first = max(max(scores) for scores in values.values()), runs[PRESENT][0].score
    metric = "share of the loss removed" if first.metric == "negative loss" else first.metric
    lanes = []
    for entry in entries:
        ours = values[entry.name], values[PLACEBO], best, plan.steps, first.samples
        verdict = judge(f"held-out {metric}", values[PRESENT], *ours)
        loss = level([run.end for run in runs[entry.name]])
        lanes.append(Lane(entry.name, entry.remedy, level(values[entry.name]), loss, verdict))
    return Raced(plan, metric, lanes[0], tuple(lanes[2:]), refused)


def _afterwards(problem: Problem, name: str, steps: int, seed: int, mix: bool, scored: Sequence[Batch]) -> Outcome:
    """One training whose statistics are computed anew at its end, or half way and kept from there on."""
    with single_threaded():
        run, first = Training(problem, seed, mix), steps // 2 if name == FROZEN else steps
        run.advance(first)
        averaged(problem, run.model)
        for norm in norms(run.model).values():
            norm.train(norm.training and name != FROZEN)
        run.advance(steps - first)
        return Outcome(tuple(run.losses), run.score(scored, len(scored)), run.diverged)


def _paced(problem: Problem, steps: int) -> Problem:
    """The problem with momenta under which running statistics hold as much of their start after so many steps as they
    did after the script's own (or `LEFT`): else a short race would show a lag that the script has not."""
    if problem.loop.steps <= steps:
        return problem
    model = problem.twin()
    for norm in norms(model).values():
        if norm.momentum is not None:
            left = max(left_of_start(norm.momentum, problem.loop.steps), LEFT)
            norm.momentum = max(norm.momentum, 1 - left ** (1 / steps))
    return replace(problem, model=model)


def _scored(problem: Problem) -> tuple[Batch, ...]:
    """Held-out samples (training ones where there are none), in one batch where nothing depends on its size."""
    data = problem.held_out or problem.data
    apart = spaced(data, track.scored_batches(problem))
    rows = Rows.of(apart, samples_a_batch(problem))
    if rows is None or any(norm.running_mean is None for norm in norms(problem.model).values()):
        return apart
    joined = rows.batches(torch.arange(len(rows)), len(rows))
    try:
        with torch.no_grad():
            problem.value(problem.twin().eval(), joined[0])
    except Exception:  # a batch size that the user's program has written down
        return apart
    return joined
