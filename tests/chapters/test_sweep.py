"""Rates on bowls, whose course is known in closed form; and intervals against scipy's."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from unstuck.chapters.sweep import Sweep, clearly_below, judged
from unstuck.criterion import Score
from unstuck.problem import Problem
from unstuck.race.trials import Level, Outcome, trials

STEPS = 40
NO_SCORE = Score("accuracy", 0.0, 0.0, 1)


def bowl(curvatures: tuple[float, ...], start: float = 2.0) -> Problem:
    """Loss ½ Σ c w², from w = start."""
    size = len(curvatures)
    model = nn.Linear(size, 1, bias=False).double()
    nn.init.constant_(model.weight, start)
    x = torch.diag(torch.tensor(curvatures, dtype=torch.float64).mul(size).sqrt())
    loss = lambda output, target: 0.5 * (output - target).square().mean()  # noqa: E731
    batch = (x, torch.zeros(size, 1, dtype=torch.float64))
    return Problem(model, loss, [batch], torch.optim.SGD(model.parameters(), 1.0))


def course(curvatures: tuple[float, ...], rate: float, step: int, start: float = 2.0) -> float:
    return sum(0.5 * c * (start * (1 - rate * c) ** step) ** 2 for c in curvatures)


def swept(case: Problem, rates: list[float], initial: float) -> Sweep:
    lanes = [(replace(case, optimizer=case.optimizer.scaled(rate)), STEPS) for rate in rates]
    return judged("SGD", rates, trials(lanes, 2, case.data)[0], initial)


def made(*levels: Level, learns: tuple[bool | None, ...] | None = None, initial: float = 1.0) -> Sweep:
    rates = tuple(10.0 ** (k - 3) for k in range(len(levels)))
    return Sweep("SGD", rates, levels, learns or (None,) * len(levels), initial, STEPS)


def outcomes(rows: list[list[float]]) -> list[list[Outcome]]:
    return [[Outcome((end,) * STEPS, NO_SCORE, not math.isfinite(end)) for end in row] for row in rows]


@pytest.mark.parametrize("curvatures", [(0.5,), (4.0,), (1.0, 10.0)])
def test_plain_descent_on_a_bowl_learns_up_to_two_over_the_curvature(curvatures: tuple[float, ...]) -> None:
    edge, initial = 2 / max(curvatures), course(curvatures, 0.0, 0)
    shares = [1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 1.1, 1.5, 10.0, 1e6]
    rates = [share * edge for share in shares]
    found = swept(bowl(curvatures), rates, initial)
    ends = [np.mean([course(curvatures, rate, t) for t in range(STEPS - 4, STEPS)]) for rate in rates[:-1]] + [math.inf]
    for share, level, end in zip(shares[:8], found.levels, ends, strict=False):
        assert level.mean == pytest.approx(end, rel=1e-4, abs=1e-12), share
    assert found.levels[-1].mean == math.inf
    assert found.learns == tuple(end < initial / 2 for end in ends)
    assert found.high == rates[5] < edge < rates[6] and found.any
    assert found.low == min(rate for rate, end in zip(rates, ends, strict=True) if end < initial / 2) > rates[1]
    assert found.best == rates[int(np.argmin(ends))] and found.reached.mean == pytest.approx(min(ends), abs=1e-12)
    told = [found.standing(rate) for rate in rates]
    assert told == ["below" if r < found.low else "inside" if r <= found.high else "above" for r in rates]
    assert found.standing(1.2 * rates[0]) == "below" and found.standing(1e3 * rates[-1]) == "above"
    assert found.at(1.05 * rates[4]) == found.levels[4] and found.steps == STEPS


def test_no_rate_learns() -> None:
    found = swept(bowl((1.0,)), [10.0, 100.0, 1e9], 2.0)
    assert not found.any and found.learns == (False, False, False)
    for gone in (judged("SGD", (0.1, 1.0), outcomes([[math.inf, 1.0], [math.nan, math.inf]]), 1.0),
                 judged("SGD", (0.1, 1.0), outcomes([[math.nan] * 2] * 2), math.nan)):  # fmt: skip
        assert not gone.any and gone.learns == (False, False) and gone.reached.mean == math.inf


def test_whether_a_rate_learns_is_told_by_students_interval() -> None:
    draw = np.random.default_rng(0)
    for seeds in (2, 3, 5):
        rows = [[0.0] * seeds, *draw.normal(0.5, 0.3, (200, 1)) + draw.normal(0, 0.05, (200, seeds))]
        found = judged("SGD", np.linspace(1, 2, len(rows)), outcomes([list(map(float, row)) for row in rows]), 1.0)
        line = 1 - 0.5 * (1 - min(np.mean(row) for row in rows))
        seen = set()
        for row, learns in zip(rows[1:], found.learns[1:], strict=True):
            counted = np.minimum(row, 1.0)  # how far above the start does not count
            low, high = stats.t.interval(0.95, seeds - 1, np.mean(counted), max(stats.sem(counted), 1e-12))
            assert learns is (True if high < line else False if low > line else None)
            seen.add(learns)
        assert seen == {True, False, None}
    one = judged("SGD", (0.1, 1.0, 2.0), outcomes([[0.0], [0.49], [0.51]]), 1.0)
    assert one.learns == (True, True, False)


def test_losses_far_above_the_start_do_not_learn_however_they_scatter() -> None:
    found = judged("SGD", (0.1, 1.0), outcomes([[0.1, 0.1, 0.1], [1.5, 20.0, 3000.0]]), 1.0)
    assert found.learns == (True, False) and found.standing(1.0) == "above"
    assert found.levels[1].mean == pytest.approx(3021.5 / 3)


def test_the_range_is_unbroken_and_what_lies_outside_of_it_is_not_inside() -> None:
    levels = [Level(mean, 0.0, 3) for mean in (0.2, 0.9, 0.1, 0.0, 0.4, 0.45)]
    found = made(*levels, learns=(True, False, True, True, None, True))
    rates = found.rates
    assert (found.low, found.best, found.high) == (rates[2], rates[3], rates[3])
    told = [found.standing(rate) for rate in rates]
    assert told == ["undecided", "below", "inside", "inside", "undecided", "undecided"]


def test_the_best_rate_alone_may_be_undecided() -> None:
    found = judged("SGD", (0.1, 1.0), outcomes([[0.1, 0.9], [1.0, 1.0]]), 1.0)
    assert found.any and found.low == found.high == 0.1
    assert found.standing(0.1) == "undecided" and found.standing(1.0) == "above"


def test_clearly_below() -> None:
    low, high = Level(0.5, 0.01, 3), Level(1.0, 0.01, 3)
    gone = Level(math.inf, 0.0, 3)
    assert clearly_below(low, high) and not clearly_below(high, low) and not clearly_below(low, low)
    assert clearly_below(low, gone) and not clearly_below(gone, low) and not clearly_below(gone, gone)
    assert not clearly_below(low, Level(1.0, 0.3, 3)) and not clearly_below(Level(0.5, 0.3, 3), high)
    assert clearly_below(Level(0.89, 0.0, 3), Level(1.0, 0.0, 3))
    assert not clearly_below(Level(0.91, 0.0, 3), Level(1.0, 0.0, 3))
    assert clearly_below(Level(-2.0, 0.0, 3), Level(-1.0, 0.0, 3))
    assert not clearly_below(Level(-1.05, 0.0, 3), Level(-1.0, 0.0, 3))
