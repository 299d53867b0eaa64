"""The chapter on steps says what the race found, and its advice is better when it is followed."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import msgspec
import pytest
import torch
from tests.chapters.test_optimizers import BUDGET, small
from tests.chapters.test_sweep import made
from torch import nn

from unstuck.chapters import optimizers, steps
from unstuck.chapters.optimizers import Raced
from unstuck.chapters.plan import Plan
from unstuck.chapters.sweep import judged
from unstuck.evidence import Evidence
from unstuck.loop import Loop
from unstuck.probes import gradients
from unstuck.problem import Problem
from unstuck.race.trials import Level, trials
from unstuck.recipe import recipe_of
from unstuck.records import Chapter, RemedyLine
from unstuck.training import Training

PLAN = Plan(60, 3)


def evidence(case: Problem, **fields) -> Evidence:
    return Evidence(case.loop, case, case.optimizer, **fields)


def followed(case: Problem, advice: RemedyLine) -> Problem:
    """The problem with the optimizer that the advice's code makes."""
    model = case.twin()
    optimizer = eval(advice.code.removeprefix("optimizer = "), {"torch": torch, "model": model})
    return replace(case, optimizer=recipe_of(optimizer, {id(p): n for n, p in model.named_parameters()}))


def end(case: Problem, updates: int = 60) -> float:
    run = Training(replace(case, loop=replace(case.loop, schedule=())))
    run.advance(updates)
    return fmean(run.losses[-6:])


def own_alone(case: Problem) -> Raced:
    """The race of the user's own optimizer."""
    lanes = optimizers._own(case, case.optimizer)
    found, _ = trials([(lane, PLAN.steps) for _, _, lane in lanes], PLAN.seeds, case.held_out, mix=True)
    rates = [rate for _, rate, _ in lanes]
    return Raced(PLAN, case.optimizer.lr, judged("Adam", rates, found, found[0][0].losses[0]))


def again(chapter: Chapter) -> Chapter:
    return msgspec.json.decode(msgspec.json.encode(chapter), type=Chapter)


@pytest.fixture(scope="module")
def slow():
    case = small(torch.optim.Adam, lr=1e-6, steps=40)
    case = replace(case, loop=replace(case.loop, schedule=(1.0,) * 30 + (0.1,) * 10))
    return case, steps.chapter(case, evidence(case), BUDGET)


def test_it_names_the_range_the_standing_and_all_that_was_raced(slow) -> None:
    _, chapter = slow
    rates, rivals, momentum, epsilon, onward, layers = chapter.sentences
    figures = {figure.name: figure for figure in chapter.figures}
    low, high = figures["smallest rate that learns"].value, figures["largest rate that learns"].value
    assert f"Adam learns at rates from {low:.2g}" in rates and f"to {high:.2g}" in rates
    told = [f"; 1e-06 {steps.SAID[standing]}." for standing in ("below", "undecided")]  # few seeds
    assert any(said in rates for said in told) and 1e-6 < low <= high
    assert rivals.startswith("Each optimizer at the rate that suits it: ") and " ahead of Adam at its best." in rivals
    assert momentum.startswith("Momentum") and "β = 0.99: " in momentum and epsilon.startswith("Epsilon")
    assert onward.startswith("Going on from where the training was left, where the loss was ")
    assert "at a rate of 3e-06. The schedule had come to 0.1 of the optimizer's rate." in onward
    assert layers.startswith("A plain step moves the layers by shares of their weights that differ ")
    assert chapter.id == "steps" and chapter.title == steps.TITLE


def test_its_charts_hold_every_optimizer_and_rule(slow) -> None:
    case, chapter = slow
    race, momentum, epsilon, course, schedule = chapter.charts
    assert race.curves[0].name == "Adam, as it is set" and len(race.curves) == 6
    assert all(x == tuple(sorted(x)) and len(x) == len(y) for x, y in ((c.x, c.y) for c in race.curves))
    assert len(momentum.curves) == len(epsilon.curves) == 4 and momentum.bars and epsilon.bars
    assert {curve.name for curve in course.curves} == {"sgd", "momentum", "adagrad", "rmsprop", "adam"}
    assert schedule.curves[0].y == case.loop.schedule


def test_following_its_advice_is_better(slow) -> None:
    case, chapter = slow
    assert chapter.advice is not None
    assert end(followed(case, chapter.advice)) < 0.5 * end(case)


def test_it_survives_json(slow) -> None:
    assert again(slow[1]) == slow[1]


def test_a_rate_far_too_low_gets_a_larger_one_that_is_better() -> None:
    case = small(torch.optim.Adam, lr=1e-6)
    race = own_alone(case)
    advice = steps._advice(case, race)
    assert race.own.standing(1e-6) == "below" and advice.id == "change-learning-rate"
    better = followed(case, advice)
    assert better.optimizer.lr == pytest.approx(race.own.best, rel=0.06) and better.optimizer.lr > 1e-4
    assert end(better) < 0.5 * end(case)


def test_a_rate_that_is_right_gets_no_advice_and_one_far_too_high_a_smaller() -> None:
    right = own_alone(small(torch.optim.Adam, lr=1e-6)).own.best
    case = small(torch.optim.Adam, lr=right)
    assert steps._advice(case, own_alone(case)) is None
    case = small(torch.optim.Adam, lr=100.0)
    race = own_alone(case)
    assert race.own.standing(100.0) == "above"
    assert end(followed(case, steps._advice(case, race))) < 0.5 * end(case)


def test_another_optimizer_is_advised_only_where_it_learns_and_is_ahead() -> None:
    case = small(lr=0.01)  # the second of the rates
    flat, good, bad = Level(1.0, 0.0, 3), Level(0.1, 0.0, 3), Level(0.8, 0.0, 3)
    adam = replace(made(flat, good), name="adam")
    worse = replace(made(Level(4.0, 0.0, 3), Level(3.0, 0.0, 3)), name="adagrad")
    stuck = made(Level(1.1, 0.0, 3), flat)
    advice = steps._advice(case, Raced(PLAN, 0.01, stuck, (adam, worse)))
    assert advice.code == "optimizer = torch.optim.Adam(model.parameters(), lr=0.01)"
    assert "No rate of SGD from 0.001 to 0.01 brings the loss down" in steps._rates(Raced(PLAN, 0.01, stuck))[0]
    gone = made(*[Level(float("inf"), 0.0, 3)] * 2)
    assert steps._advice(case, Raced(PLAN, 0.01, gone, (worse,))) is None  # above where it began
    assert steps._advice(case, Raced(PLAN, 0.01, made(flat, good), (replace(adam, levels=(flat, bad)),))) is None
    assert "None is clearly ahead of SGD" in steps._rivals(Raced(PLAN, 0.01, made(flat, good), (adam,)))[0]
    assert "Adam is ahead of SGD" in steps._rivals(Raced(PLAN, 0.01, stuck, (adam,)))[0]


def test_figures_of_what_never_learns_name_no_range_and_are_finite_or_none() -> None:
    race = Raced(PLAN, 0.01, made(*[Level(float("inf"), 0.0, 3)] * 2, initial=float("nan")))
    figures = steps._race_figures(race)
    assert [figure.name.split(" ")[0] for figure in figures] == ["present", "loss", "loss"]
    assert [figure.value for figure in figures] == [0.01, None, None]
    chapter = Chapter("steps", "", tuple(steps._rates(race)), figures, steps._race_charts(race))
    assert again(chapter) == chapter


def test_open_ends_and_a_rate_of_zero_are_said() -> None:
    good, flat = Level(0.1, 0.0, 3), Level(1.0, 0.0, 3)
    (said,) = steps._rates(Raced(PLAN, 0.0, made(good, good, learns=(True, True))))
    assert "at rates from 0.001 or less to 0.01 or more; the present rate is 0." in said
    (said,) = steps._rates(Raced(PLAN, 0.01, made(flat, good, flat, learns=(False, True, False))))
    assert "at rates from 0.01 to 0.01; 0.01 is one of them." in said
    (said,) = steps._rates(Raced(PLAN, 0.1, made(flat, good, flat, learns=(False, True, None))))
    assert "0.1 stands at their edge" in said


class Vector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x


def test_where_nothing_can_be_measured_it_says_why() -> None:
    case = Problem(Vector(), nn.MSELoss(), [(torch.randn(4, 5), torch.randn(4, 5))] * 4)
    chapter = steps.chapter(case, evidence(case), BUDGET)
    assert chapter.sentences == (
        "Not measured: no optimizer with a learning rate was seen.",
        "Not measured: no layer has a weight matrix that is trained.",
    )
    assert chapter.charts == chapter.figures == () and chapter.advice is None and again(chapter) == chapter


def test_a_model_that_fails_leaves_a_chapter_that_says_so() -> None:
    def broken(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise KeyError("a fault of the user's")

    case = small(lr=0.1)
    case = Problem(case.model, broken, case.data, torch.optim.SGD(case.model.parameters(), lr=0.1))
    chapter = steps.chapter(case, evidence(case), BUDGET)
    assert len(chapter.sentences) == 2 and all("KeyError" in said for said in chapter.sentences)


def test_adagrads_sum_is_told() -> None:
    case = small(torch.optim.Adagrad, lr=0.1)
    found = gradients.measure(case)
    (said,) = steps._exhausted(evidence(case, gradients=found))
    assert f"to {found.exhausted:.2g} of what it would be" in said
    assert steps._exhausted(evidence(small(lr=0.1), gradients=found)) == steps._exhausted(evidence(case)) == []
    assert steps._exhausted(Evidence(Loop(), gradients=found)) == []
