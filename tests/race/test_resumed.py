"""Races that go on from where the training was left, and heats that become one race."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.small import clouds, mlp, trained, written

from unstuck.diagnose import _heats
from unstuck.problem import Problem, resumed
from unstuck.race import race
from unstuck.race.race import Race, _depth, _done, _settle, enter, together
from unstuck.race.track import Lane, Track
from unstuck.records import Curve, Verdict
from unstuck.remedies.remedy import Remedy
from unstuck.training import Training

NAMES = ("control", "placebo", "nothing")


def left(steps: int = 60, **fields) -> Problem:
    return trained(written(mlp(), *clouds(320), **fields), steps)


def nothing(name: str, against: str) -> tuple[str, Remedy]:
    return name, Remedy(name, "", "", lambda p: p, against=against)


def heat(name: str, outcome: str, seconds: float, steps: int = 40) -> Race:
    curves = tuple(Curve(lane, (10.0,), (0.5,)) for lane in ("control", name))
    return Race({name: Verdict(outcome=outcome)}, curves, "held-out accuracy", steps, seconds)


def test_it_begins_where_the_training_was_left():
    problem = left()
    gone_on = resumed(problem)
    before = {name: tensor.clone() for name, tensor in problem.model.state_dict().items()}
    for name, tensor in gone_on.model.state_dict().items():
        assert torch.equal(tensor, problem.last[name]) and not torch.equal(tensor, before[name])
    assert all(torch.equal(before[name], tensor) for name, tensor in problem.model.state_dict().items())
    run, first = Training(gone_on), Training(problem).score(problem.data).loss
    assert run.score(problem.data).loss < 0.2 * first
    run.advance(20)
    assert max(run.losses[0], run.score(problem.data).loss) < 0.2 * first


def test_it_keeps_the_last_learning_rate():
    problem = left()
    problem = replace(problem, loop=replace(problem.loop, schedule=(1.0, 0.5, 0.1)))
    gone_on = resumed(problem)
    assert gone_on.loop.schedule == (0.1,)
    run = Training(gone_on)
    run.advance(3)
    assert run.optimizer.param_groups[0]["lr"] == 0.1 * 0.01
    assert resumed(left()).loop.schedule == ()


def test_its_control_starts_at_the_last_state_with_every_seed():
    gone_on = resumed(left())
    lanes, refused = enter(gone_on, [nothing("nothing", "from the end")])
    assert not refused and tuple(lane.name for lane in lanes) == NAMES
    done = race.run(lanes, 0.0, 6, anew=False)
    assert {curve.name for curve in done.curves} == set(NAMES)
    assert done.verdicts["nothing"].outcome == "no-effect"
    control = next(curve for curve in done.curves if curve.name == "control")
    assert control.low[0] > 0.9


def test_remedies_that_go_on_have_a_heat_of_their_own():
    problem = left()
    kinds = (("anew", "anew"), ("on", "from the end"), ("anew too", "anew"), ("another", "own start"))
    (first, anew, mixed), (same, own, kept), (second, on, _) = _heats(problem, [nothing(*kind) for kind in kinds])
    assert first is problem and mixed and [name for name, _ in anew] == ["anew", "anew too"]
    assert same is problem and not kept and [name for name, _ in own] == ["another"]
    assert [name for name, _ in on] == ["on"]
    assert torch.equal(second.twin().state_dict()["0.weight"], problem.last["0.weight"])


def test_what_stays_as_it_was_left_takes_no_step():
    problem = left()
    lanes, _ = enter(resumed(problem), [nothing("nothing", "as left")])
    done = race.standing(lanes, 0.0)
    verdict = done.verdicts["nothing"]
    assert verdict.outcome == "no-effect" and verdict.control == verdict.remedied > 0.9
    assert (verdict.steps, verdict.seeds, done.steps, done.curves) == (0, 0, 0, ())
    assert all(not heat for _, heat, _ in _heats(problem, [nothing("nothing", "as left")]))


def test_heats_become_one_race_with_every_name():
    joined = together([heat("anew", "helped", 3.0), heat("on", "cured", 2.0, steps=70)])
    assert {name: verdict.outcome for name, verdict in joined.verdicts.items()} == {"anew": "helped", "on": "cured"}
    names = [curve.name for curve in joined.curves]
    assert names == ["control", "anew", "control (heat 2)", "on (heat 2)"]
    assert joined.seconds == 5.0 and joined.steps == 40 and joined.metric == "held-out accuracy"


def test_one_heat_stays_as_it_is_and_none_is_no_race():
    one = heat("anew", "helped", 3.0)
    assert together([one]) == one
    assert together([]) is None


def test_what_leaves_a_saddle_sooner_is_told_from_what_leaves_it_in_the_end():
    def track(lane: Lane, seed: int, held_out: list[float]) -> Track:
        return Track(lane, seed, False, 1.0, steps=[150, 300, 450, 600], held_out=held_out, samples=1000)

    lanes = [Lane(name, left(1)) for name in ("control", "placebo", "out", "early")]
    rising = {"control": [0.1, 0.1, 0.12, 0.99], "placebo": [0.1, 0.11, 0.13, 0.99], "out": [0.9, 0.97, 0.99, 0.99]}
    rising["early"], lanes[-1] = rising["out"], replace(lanes[-1], early=True)
    tracks = {
        (lane.name, seed): track(lane, seed, [x + 0.001 * seed for x in rising[lane.name]])
        for lane in lanes
        for seed in range(3)
    }
    late, early = map(_settle(lanes, tracks, 1.0, 600, 1.0).verdicts.get, ("out", "early"))
    assert late.outcome == "no-effect" and late.steps == 600
    assert early.outcome == "cured" and early.steps == 300 and early.control == pytest.approx(0.101)


@pytest.mark.parametrize(
    ("scores", "check"),
    [
        ([[0.1, 0.2, 0.3, 0.4]], 4),
        ([[1.0, 1.0, 1.0, 1.0]], 1),
        ([[0.2, 0.99, 1.0, 1.0], [0.2, 0.99, 1.0, 1.0]], 2),
        ([[0.99, 0.2, 1.0]], 3),
        ([[0.5, 0.0, -0.1]], 3),
    ],
)
def test_a_lane_is_done_where_it_stays_at_what_it_ends_with(scores, check):
    assert _done(scores) == check


@pytest.mark.parametrize(
    ("made", "hidden", "check"),
    [
        ({0: 4, 1: 4, 2: 4}, 0, 4),
        ({0: 4, 1: 4, 2: 2}, 0, 2),  # the third seed on its way: three at half of the race, not two at its end
        ({0: 4, 1: 4, 2: 3}, 0, 3),
        ({0: 4, 1: 4, 2: 1}, 0, 4),  # not half way
        ({0: 4, 1: 4, 2: 2}, 2, 4),  # the effect cannot show yet
        ({0: 4, 1: 2}, 0, 2),
        ({0: 4}, 0, 4),
        ({0: 1, 1: 1}, 0, 1),
        ({1: 3}, 0, 1),
    ],
)
def test_a_seed_more_is_worth_the_last_steps(made, hidden, check):
    assert _depth(made, hidden) == check


def test_only_what_goes_on_from_the_end_is_compared_early():
    named = [nothing("new", "anew"), nothing("same", "own start"), nothing("on", "from the end")]
    assert [lane.early for lane in enter(left(1), named)[0]] == [False, False, False, False, True]
