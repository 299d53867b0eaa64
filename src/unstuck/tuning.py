"""`unstuck race`: which optimizer, learning rate and batch size train this network best, tried on copies of it.

    report = tune(problem, optimizers=("sgd", "adam"), lr="1e-4:1:13", steps=500)
    report.race[0].optimizer, report.race[0].lr, report.best.code
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from scipy.special import stdtrit

from unstuck.criterion import prepared
from unstuck.errors import BadArgument
from unstuck.probes.level import collect_targets
from unstuck.problem import Problem
from unstuck.race.contest import Result, Tick, contest
from unstuck.race.grid import Setting, grid, rates
from unstuck.race.ledger import Ledger, named
from unstuck.records import Chart, Cost, Curve, Figure, RaceLine, RemedyLine, Report, Skipped
from unstuck.sandbox import sandbox

OPTIMIZERS = ("sgd", "momentum", "adagrad", "rmsprop", "adam")
LEDGER = "race.sqlite"
EQUAL = 0.005
"""Scores this close are the same to a user."""


def tune(
    problem: Problem, optimizers: Sequence[str] = OPTIMIZERS, lr: str | Sequence[float] = "1e-4:1:13",
    batch_sizes: Sequence[int] = (), steps: int = 500, seeds: int = 3, full: bool = False,
    folder: Path | None = None, target: str = "", skipped: Sequence[Skipped] = (),
    tick: Tick = lambda what, share: None,
) -> Report:  # fmt: skip
    """The report on a race of every combination, from the problem's initial state, `steps` updates each.

    lr        rates, or text for `race.grid.rates`
    full      train all of them to the end with every seed; else the better go on, and four run with every seed
    folder    where to note what is finished: a race that was killed goes on there, and ends with the same result

    Settings are compared seed by seed by their score on held-out data. Raises BadArgument for what cannot be raced.
    """
    if not isinstance(problem, Problem):
        raise BadArgument(f"race: `problem` must be an unstuck.Problem, got {type(problem).__name__}")
    began = time.perf_counter()
    problem = prepared(problem)
    settings = grid(problem, optimizers, rates(lr) if isinstance(lr, str) else tuple(map(float, lr)), batch_sizes)
    ledger = Ledger(folder / LEDGER, named(problem, settings, steps, full)) if folder is not None else None
    results: list[Result] = []
    executors: dict[str, str] = {}
    known = ledger.known if ledger is not None else lambda seed: None
    for seed, done, who in contest(problem, settings, steps, seeds, full, tick, known):
        if ledger is not None and who:
            ledger.write(seed, done, who)
        executors = executors or who or (ledger.executors(seed) if ledger is not None else {})
        results += done
    ranked = ranking(results, steps)
    return Report(
        headline=_headline(ranked, results, steps),
        target=target,
        figures=_figures(ranked, results, problem),
        skipped=tuple(skipped),
        cost=Cost(None, 0.0, time.perf_counter() - began),
        charts=_charts(ranked, results, steps, _metric(problem)),
        unexplained=not ranked or ranked[0].outcome != "finished",
        race=ranked,
        best=_best(ranked, problem),
        notes=(*_doubts(problem), *(f"Trained, {where}: {who}." for where, who in executors.items())),
    )


def _doubts(problem: Problem) -> tuple[str, ...]:
    """What makes the ranking worth little, whatever it is."""
    with sandbox(0):
        targets = collect_targets(problem, problem.held_out or problem.data)
    if not targets or any(bool((t != targets[0].flatten()[0]).any()) for t in targets if t.numel()):
        return ()
    return ("Every held-out target is the same: a constant answer scores as well, and the ranking says little.",)


def ranking(results: Sequence[Result], steps: int) -> tuple[RaceLine, ...]:
    """A line for every setting, best first: those that were finished by their mean score over seeds, those that were
    stopped by how far they came, those that diverged last."""
    lines = [_line([r for r in results if r.setting == setting], steps) for setting in _settings(results)]
    order = {"finished": 0, "stopped": 1, "diverged": 2}
    return tuple(sorted(lines, key=lambda line: (order[line.outcome], -line.steps, -line.seeds, -(line.score or 0.0))))


def _settings(results: Sequence[Result]) -> list[Setting]:
    return list(dict.fromkeys(result.setting for result in results))


def _line(runs: Sequence[Result], steps: int) -> RaceLine:
    setting, scores = runs[0].setting, [run.score for run in runs]
    ended = all(run.steps[-1] == steps for run in runs)
    return RaceLine(
        optimizer=setting.optimizer,
        lr=setting.lr,
        batch_size=setting.batch_size,
        outcome="diverged" if any(run.diverged for run in runs) else "finished" if ended else "stopped",
        score=statistics.fmean(scores),
        error=statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None,
        train_loss=_mean([run.train[-1] for run in runs]),
        seeds=len(runs),
        steps=runs[0].steps[-1],
        code=setting.code(),
    )


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if all(map(math.isfinite, values)) else None


def margin(results: Sequence[Result], first: RaceLine, second: RaceLine) -> tuple[float, float] | None:
    """Mean difference of two settings' scores, seed by seed, and the half width of its 95 % interval (Student's t);
    None with fewer than two seeds in common."""
    ours, others = ({r.seed: r.score for r in results if _is(r.setting, line)} for line in (first, second))
    apart = [ours[seed] - others[seed] for seed in sorted(set(ours) & set(others))]
    if len(apart) < 2:
        return None
    half = float(stdtrit(len(apart) - 1, 0.975)) * statistics.stdev(apart) / math.sqrt(len(apart))
    return statistics.fmean(apart), half


def _is(setting: Setting, line: RaceLine) -> bool:
    return (setting.optimizer, setting.lr, setting.batch_size) == (line.optimizer, line.lr, line.batch_size)


def _name(line: RaceLine, sizes: bool) -> str:
    return str(Setting(line.optimizer, line.lr, line.batch_size if sizes else 0))


def _headline(ranked: Sequence[RaceLine], results: Sequence[Result], steps: int) -> str:
    sizes = len({line.batch_size for line in ranked}) > 1
    if not ranked or ranked[0].outcome != "finished":
        return f"Undecided: none of {len(ranked)} settings came through {steps} steps without diverging."
    best = _name(ranked[0], sizes)
    rivals = [line for line in ranked[1:] if line.outcome == "finished"]
    if not rivals:
        return f"Best of {len(ranked)} settings: {best}; no other came through {steps} steps."
    second, found = _name(rivals[0], sizes), margin(results, ranked[0], rivals[0])
    if found is None:
        return f"Best of {len(ranked)} settings: {best}; with one seed it is not known how sure that is."
    apart, half = found
    if apart - half > 0:
        return f"Best of {len(ranked)} settings: {best}; ahead of {second} by {apart:.3g} ± {half:.2g}."
    near = "as good within" if half <= EQUAL else "not told apart from it, within"
    return f"Best of {len(ranked)} settings: {best}; {second} is {near} {max(half, abs(apart)):.2g}."


def _metric(problem: Problem) -> str:
    if problem.criterion.task in {"classes", "onehot", "binary", "multilabel"}:
        return "accuracy"
    return "R²" if problem.criterion.task == "regression" else "share of the loss removed"


def _figures(ranked: Sequence[RaceLine], results: Sequence[Result], problem: Problem) -> tuple[Figure, ...]:
    metric = f"held-out {_metric(problem)}"
    figures = [Figure("settings", len(ranked)), Figure("trainings", len(results))]
    figures += [Figure(f"{metric} of the best", ranked[0].score, error=ranked[0].error)] if ranked else []
    figures.append(Figure("settings that diverged", sum(line.outcome == "diverged" for line in ranked)))
    return tuple(figures)


def _best(ranked: Sequence[RaceLine], problem: Problem) -> RemedyLine | None:
    if not ranked or ranked[0].outcome != "finished":
        return None
    line = ranked[0]
    setting = Setting(line.optimizer, line.lr, line.batch_size)
    several = len({other.batch_size for other in ranked}) > 1
    code = setting.code(problem.model_name) + (f"\nbatch_size = {line.batch_size}" if several else "")
    return RemedyLine("change-optimizer", f"train with {_name(line, several)}", code)


def _charts(ranked: Sequence[RaceLine], results: Sequence[Result], steps: int, metric: str) -> tuple[Chart, ...]:
    optimizers = list(dict.fromkeys(line.optimizer for line in ranked))
    best = [next(line for line in ranked if line.optimizer == name) for name in optimizers]
    score = f"held-out {metric}"
    charts = (_curves(best, results, "train", "training loss"), _curves(best, results, "held_out", score))
    return (*charts, *(_map(ranked, name, metric) for name in optimizers))


def _curves(lines: Sequence[RaceLine], results: Sequence[Result], what: str, said: str) -> Chart:
    """The best setting of each optimizer over the steps, mean of its seeds with the lowest and the highest."""
    curves = []
    for line in lines:
        runs = [r for r in results if _is(r.setting, line)]
        columns = list(zip(*(getattr(run, what) for run in runs), strict=False))
        mean, low, high = (tuple(pick(column) for column in columns) for pick in (statistics.fmean, min, max))
        steps = tuple(map(float, runs[0].steps[: len(mean)]))
        curves.append(Curve(f"{line.optimizer}, lr {line.lr:.3g}", steps, mean, low, high))
    log = what == "train" and all(y > 0 for curve in curves for y in curve.y if y is not None)
    return Chart(f"{said[0].upper()}{said[1:]} of each optimizer at its best", "step", said, tuple(curves), log_y=log)


def _map(ranked: Sequence[RaceLine], optimizer: str, metric: str) -> Chart:
    """Score over learning rate and batch size: a row for each batch size."""
    lines = [line for line in ranked if line.optimizer == optimizer]
    lrs = sorted({line.lr for line in lines})
    rows = []
    for size in sorted({line.batch_size for line in lines}):
        scores = {line.lr: line.score for line in lines if line.batch_size == size and line.outcome != "diverged"}
        rows.append(Curve(str(size), tuple(lrs), tuple(scores.get(lr) for lr in lrs)))
    return Chart(
        f"{optimizer}: held-out {metric}", "learning rate", "batch size", tuple(rows), heat=True,
        note="Where a setting was stopped early its score is that of then; empty where it diverged.",
    )  # fmt: skip
