"""Verdicts: right on known effects, silent on none; the race finds a cure that is known and stops in time."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.small import clouds, mlp, written
from torch import nn

from unstuck.criterion import prepared
from unstuck.problem import Problem
from unstuck.race import race
from unstuck.race.track import Lane, Track
from unstuck.race.verdict import judge
from unstuck.remedies.batches import smaller_batch
from unstuck.remedies.learning_rate import change_learning_rate, change_optimizer
from unstuck.remedies.remedy import Remedy
from unstuck.rules.rule import Suspicion
from unstuck.training import Training


@pytest.mark.parametrize(
    ("control", "remedied", "outcome"),
    [
        ([0.10, 0.11, 0.10], [0.95, 0.94, 0.95], "cured"),
        ([0.50, 0.51, 0.50], [0.62, 0.61, 0.62], "helped"),
        ([0.90, 0.91, 0.90], [0.90, 0.91, 0.90], "no-effect"),
        ([0.90, 0.91, 0.90], [0.30, 0.31, 0.30], "worse"),
        ([0.50, 0.70, 0.60], [0.75, 0.60, 0.72], "undecided"),
    ],
)
def test_verdicts(control, remedied, outcome):
    placebo = [c + d for c, d in zip(control, (0.004, -0.003, 0.001), strict=True)]
    assert judge("train accuracy", control, remedied, placebo, 0.97, 300, 2000).outcome == outcome


def test_no_effect_is_called_an_effect_in_at_most_one_case_in_twenty():
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        control, lane, placebo = rng.normal(0.7, 0.04, (3, 3))
        verdict = judge("held-out R²", control, lane, placebo, 0.95, 100, 1000)
        wrong += verdict.outcome in {"cured", "helped", "worse"}
    assert wrong / 400 <= 0.06


def test_without_a_shared_seed_nothing_is_said():
    assert judge("train accuracy", [], [], [], 1.0, 10, 10).outcome == "not-tried"


def stuck(lr=50.0, steps=120, wrap=lambda net: net):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(640, 8, generator=generator)
    y = (x[:, :2].sum(1) > 0).long()
    model = wrap(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)))
    data = list(zip(x.split(32), y.split(32), strict=True))
    made = Problem(model, nn.CrossEntropyLoss(), data, optimizer=torch.optim.SGD(model.parameters(), lr=lr))
    made = replace(made, loop=replace(made.loop, steps=steps))
    return prepared(made)


def test_a_known_cure_is_proved():
    problem = stuck()
    lanes, refused = race.enter(problem, [("lr", change_learning_rate(problem, 0.3))])
    result = race.run(lanes, 0.0, 15)
    assert not refused
    assert result.verdicts["lr"].outcome == "cured"
    assert result.verdicts["lr"].seeds == 3
    assert {curve.name for curve in result.curves} == {"control", "placebo", "lr"}


def test_a_remedy_that_does_nothing_is_not_called_a_cure():
    problem = stuck(lr=0.3)
    lanes, _ = race.enter(problem, [("nothing", Remedy("nothing", "", "", lambda p: p))])
    assert race.run(lanes, 0.0, 15).verdicts["nothing"].outcome == "no-effect"


def test_a_remedy_that_cannot_be_applied_is_left_out_with_the_reason():
    def refuse(problem):
        raise ValueError("no such layer")

    lanes, refused = race.enter(stuck(), [("odd", Remedy("odd", "", "", refuse))])
    assert [lane.name for lane in lanes] == ["control", "placebo"]
    assert "no such layer" in refused["odd"]


def test_a_lane_whose_model_raises_leaves_the_others():
    def broken(problem):
        return replace(problem, model=nn.Linear(3, 2))

    problem = stuck()
    lanes, _ = race.enter(problem, [("bad", Remedy("bad", "", "", broken)), ("lr", change_learning_rate(problem, 0.3))])
    result = race.run(lanes, 0.0, 15)
    assert result.verdicts["bad"].outcome == "not-tried"
    assert "RuntimeError" in result.verdicts["bad"].why
    assert result.verdicts["lr"].outcome == "cured"


def test_the_budget_is_kept():
    problem = stuck(steps=100_000)
    lanes, _ = race.enter(problem, [("lr", change_learning_rate(problem, 0.3))])
    start = time.perf_counter()
    race.run(lanes, 0.0, 2.0)
    assert time.perf_counter() - start < 8


def test_an_effect_on_the_held_out_loss_is_proved_and_too_short_a_race_says_nothing():
    problem = stuck(lr=0.05)
    faster = Remedy("faster", "", "", lambda p: replace(p, optimizer=p.optimizer.scaled(8)), on="loss")
    late = Remedy("late", "", "", lambda p: p, on="loss", steps=10**6)
    result = race.run(race.enter(problem, [("faster", faster), ("late", late)])[0], 1.0, 15)
    verdict = result.verdicts["faster"]
    assert verdict.metric == "share of the held-out loss removed"
    assert verdict.outcome in {"cured", "helped"} and verdict.control < verdict.remedied <= 1
    assert result.verdicts["late"].outcome == "not-tried" and "only after 1000000" in result.verdicts["late"].why


def test_two_rates_of_one_suspicion_are_two_lanes():
    problem = stuck()
    rates = tuple(change_learning_rate(problem, rate) for rate in (0.3, 0.1))
    suspicion = Suspicion("learning-rate-too-low", 0.9, "", "", remedies=rates)
    assert len({name for name, _ in suspicion.lanes}) == 2
    adams = tuple(change_optimizer(problem, torch.optim.Adam, lr=lr) for lr in (1e-3, 3e-3))
    assert len({remedy.label for remedy in adams}) == 2


@pytest.mark.parametrize("placebo", [[0.6, 0.5, 0.7], [0.6, 1.0, 0.75]])
def test_one_better_seed_of_a_chaotic_training_leaves_it_undecided(placebo):
    """That the placebo differs from the control by more than the remedied copy does not make the effect none."""
    control, remedied = [0.3, 0.8, 0.4], [0.3, 0.8, 0.7]
    for metric in ("train accuracy", "held-out R²"):
        assert judge(metric, control, remedied, placebo, 0.97, 300, 2000).outcome == "undecided"


def test_an_effect_that_the_placebo_had_too_is_not_proved_by_its_order():
    control, remedied = [0.10, 0.50, 0.30], [0.60, 0.62, 0.90]
    for placebo, outcome in (([0.15, 0.45, 0.31], "helped"), ([0.75, 0.30, 0.20], "undecided")):
        assert judge("held-out R²", control, remedied, placebo, 0.97, 300, 2000).outcome == outcome


@pytest.mark.parametrize("validates", [False, True])
def test_the_loss_is_read_on_the_validation_data_where_there_are_any(validates):
    problem = stuck(lr=0.3)
    fresh = tuple((x + 3, 1 - y) for x, y in problem.held_out)
    problem = replace(problem, validation=fresh if validates else ())
    track = Track(Lane("lr", problem, "loss"), 0, True, 0.7, scored=frozenset({"loss"}))
    track.advance(20)
    run = Training(problem)
    run.advance(20)
    expected = 1 - run.score(fresh if validates else problem.held_out).loss / 0.7
    assert track.scores() == track.loss == [pytest.approx(max(expected, -1), rel=1e-6)]
    assert track.held_out == [run.score(problem.held_out).value]
    assert (track.loss[0] < 0) == validates
    result = race.run(race.enter(problem, [("nothing", Remedy("nothing", "", "", lambda p: p, on="loss"))])[0], 1.0, 5)
    data = "validation" if validates else "held-out"
    assert result.verdicts["nothing"].metric == f"share of the {data} loss removed"


class Centred(nn.Module):
    """Takes the batch's mean from the outputs: right among others, and 0 on a sample alone."""

    def __init__(self, net, among=True):
        super().__init__()
        self.net, self.among = net, among

    def forward(self, x):
        z = self.net(x)
        return z - z.mean(0) if self.among else z


def test_samples_one_by_one_show_what_a_batch_hides():
    problem = stuck(lr=0.3, wrap=Centred)

    def alone(p):
        return replace(p, model=Centred(p.twin().net, among=False))

    remedies = [(on, Remedy(on, "", "", alone, on=on)) for on in ("held-out", "one by one")]
    verdicts = race.run(race.enter(problem, remedies)[0], 1.0, 10).verdicts
    assert verdicts["held-out"].outcome != "cured" and verdicts["held-out"].control > 0.9
    found = verdicts["one by one"]
    assert found.metric == "held-out (one by one) accuracy" and found.outcome == "cured"
    assert found.control < 0.7 and found.remedied == pytest.approx(verdicts["held-out"].remedied, abs=0.06)


def test_smaller_batches_race_at_as_many_samples():
    case = written(mlp(), *clouds(640), size=64)
    (control, _, lane), refused = race.enter(case, [("smaller", smaller_batch(case, 8))])
    assert not refused
    assert lane.pace == 8.0
    tracks = [Track(each, 0, False, 1.0) for each in (control, lane)]
    for track in tracks:
        track.advance(5)
        track.advance(10)
    assert [track.steps for track in tracks] == [[5, 10]] * 2
    assert [len(track._run.losses) for track in tracks] == [10, 80]
