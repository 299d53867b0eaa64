"""The race of the chapter on steps: which lanes it has, from closed forms, and that they are trained as they say."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tests.small import clouds, mlp, trained, written

from unstuck.chapters import optimizers
from unstuck.chapters.optimizers import EPSILON, EPSILONS, MOMENTA, MOMENTUM, ON, ONWARD, OWN, RATES, RULES, raced
from unstuck.errors import NotMeasurable
from unstuck.problem import Problem
from unstuck.recipe import OptimizerRecipe, recipe_of
from unstuck.training import Training

BUDGET = 6.0
"""Seconds: enough for thirty updates of all lanes on a machine several times as slow; a free one makes a hundred."""


def small(cls=torch.optim.SGD, steps: int = 0, **options) -> Problem:
    x, y = clouds(320)
    case = written(mlp(hidden=8).double(), x.double(), y)
    optimizer = cls(case.model.parameters(), **options)
    case = replace(case, optimizer=recipe_of(optimizer, {id(p): n for n, p in case.model.named_parameters()}))
    return trained(case, steps) if steps else case


def lanes(case: Problem, name: str) -> dict[float, OptimizerRecipe]:
    return {number: lane.optimizer for own, number, lane in optimizers._all(case, case.optimizer) if own == name}


RATE = 5e-4
"""So low that a network that is mixed does not learn anew what it had learnt."""


@pytest.fixture(scope="module")
def found():
    case = small(lr=0.05, momentum=0.9, steps=200)
    case = replace(case, optimizer=case.optimizer.scaled(RATE / 0.05))
    said: list[str] = []
    return case, raced(case, BUDGET, lambda what, _: said.append(what)), said


def test_all_of_it_is_raced(found) -> None:
    case, race, said = found
    count = sum(len(part) for part in (race.own.rates, race.momenta, race.epsilons, race.onward))
    count += sum(len(rival.rates) for rival in race.rivals)
    assert said == [f"racing {count} settings over {race.plan.steps} updates"]
    assert race.present == case.optimizer.lr == pytest.approx(RATE)
    assert race.own.name == "SGD" and race.own.steps == race.plan.steps
    assert {rival.name for rival in race.rivals} == set(RULES)
    assert [beta for beta, _ in race.momenta] == list(MOMENTA) and race.epsilons == ()
    assert all(level.seeds == race.plan.seeds for level in race.own.levels) and race.executors


def test_the_users_rate_is_among_its_own_and_at_it_the_loss_is_that_of_its_training(found) -> None:
    case, race, _ = found
    assert race.present in race.own.rates and list(race.own.rates) == sorted(race.own.rates)
    again = dict(race.momenta)[0.9]  # its momentum at its rate
    assert again.mean == pytest.approx(race.own.at(race.present).mean, rel=1e-6)
    runs = [Training(replace(case, loop=replace(case.loop, schedule=())), seed) for seed in range(race.plan.seeds)]
    last = race.plan.steps // 10
    for run in runs:
        run.advance(race.plan.steps)
    ends = [sum(run.losses[-last:]) / last for run in runs]
    assert race.own.at(race.present).mean == pytest.approx(sum(ends) / len(ends), rel=1e-5)


def test_rivals_are_sorted_and_learn(found) -> None:
    _, race, _ = found
    reached = [rival.reached.mean for rival in race.rivals]
    assert reached == sorted(reached) and all(rival.rates == RATES and rival.any for rival in race.rivals)
    assert all(rival.initial == race.own.initial for rival in race.rivals)


def test_the_start_is_that_of_the_training(found) -> None:
    case, race, _ = found
    starts = [Training(case, seed).score(case.data).loss for seed in range(race.plan.seeds)]
    assert race.own.initial == pytest.approx(sum(starts) / len(starts), rel=0.05)


def test_what_goes_on_begins_where_the_training_was_left_with_every_seed(found) -> None:
    case, race, _ = found
    left = Training(replace(case, model=case.twin(last=True))).score(case.data).loss
    assert left < 0.2 * race.own.initial
    assert [rate for rate, _ in race.onward] == pytest.approx([RATE * factor for factor in ONWARD])
    assert all(level.mean < left + 0.1 * race.own.initial for _, level in race.onward)


def test_a_plain_rates_momenta_move_a_steady_gradient_as_far() -> None:
    for now in (0.0, 0.8):
        made = lanes(small(lr=0.1, momentum=now), MOMENTUM)
        assert list(made) == list(MOMENTA)
        for beta, recipe in made.items():
            assert recipe.groups[0][0]["momentum"] == beta
            assert recipe.lr / (1 - beta) == pytest.approx(0.1 / (1 - now))
    assert lanes(small(lr=0.1, momentum=0.9, nesterov=True), MOMENTUM) == {}


def test_adams_momenta_are_its_first_beta_at_the_same_rate() -> None:
    for cls in (torch.optim.Adam, torch.optim.AdamW):
        case = small(cls, lr=0.01, betas=(0.8, 0.95))
        made = lanes(case, MOMENTUM)
        assert [recipe.groups[0][0]["betas"] for recipe in made.values()] == [(beta, 0.95) for beta in MOMENTA]
        assert {recipe.lr for recipe in made.values()} == {0.01}


@pytest.mark.parametrize("cls", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_adaptive_rules_have_epsilons(cls) -> None:
    made = lanes(small(cls, lr=0.01, eps=1e-8), EPSILON)
    assert list(made) == list(EPSILONS)
    assert all(recipe.groups[0][0]["eps"] == eps and recipe.lr == 0.01 for eps, recipe in made.items())


@pytest.mark.parametrize(("cls", "options"), [(torch.optim.SGD, {}), (torch.optim.Adagrad, {"eps": 1e-10})])
def test_others_have_none(cls, options) -> None:
    assert lanes(small(cls, lr=0.01, **options), EPSILON) == {}


def test_only_a_training_that_was_left_goes_on() -> None:
    assert lanes(small(lr=0.1), ON) == {}
    case = small(lr=0.1, steps=8)
    assert list(lanes(case, ON)) == pytest.approx([0.1 * factor for factor in ONWARD])
    for name, number, lane in optimizers._all(case, case.optimizer):
        weights = lane.model.state_dict()["0.weight"]
        assert torch.equal(weights, (case.last if name == ON else case.model.state_dict())["0.weight"])
        assert name in {MOMENTUM, EPSILON} or lane.optimizer.lr == pytest.approx(number)


@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.05, 30.0])
@pytest.mark.parametrize("apart", [math.sqrt(10), 10.0])
def test_own_rates_are_even_and_reach_a_hundredfold_and_what_is_usual(rate: float, apart: float) -> None:
    case = small(lr=rate)
    rates = [number for _, number, _ in optimizers._own(case, case.optimizer, apart)]
    assert rate in rates
    assert [b / a for a, b in pairwise(rates)] == pytest.approx([apart] * (len(rates) - 1))
    lowest, highest = min(rate / 100, 1e-4), max(rate * 100, 3.0)
    assert lowest / apart < rates[0] <= lowest * 1.001 and highest / 1.001 <= rates[-1] < highest * apart


def test_groups_keep_their_ratio() -> None:
    case = small(lr=0.1)
    (options, names), = case.optimizer.groups
    case = replace(case, optimizer=replace(case.optimizer, groups=((options, names[:2]), ({"lr": 0.01}, names[2:]))))
    for recipe in lanes(case, OWN).values():
        first, second = recipe.groups
        assert first[0]["lr"] == pytest.approx(10 * second[0]["lr"])


def test_a_rate_of_zero_is_swept_around_a_usual_one() -> None:
    case = small(lr=0.0, momentum=0.9, steps=3)
    assert all(recipe.lr == number > 0 for number, recipe in lanes(case, OWN).items())
    assert lanes(case, MOMENTUM) == lanes(case, ON) == {}
    race = raced(case, BUDGET)
    assert race.present == 0 and race.own.any and race.own.low > 0 and len(race.rivals) == len(RULES)


@pytest.mark.parametrize("among", [(), (MOMENTUM,), RULES])
def test_only_what_is_asked_for_is_raced_beside_the_users_own(among) -> None:
    case = small(lr=0.1)
    chosen, _ = optimizers._chosen(case, case.optimizer, 1e-6, 60.0, among)
    assert {name for name, _, _ in chosen} == {OWN, *among}


def test_where_time_is_short_the_users_own_rates_are_raced_alone() -> None:
    case = small(lr=0.1)
    every, own = len(optimizers._all(case, case.optimizer)), len(optimizers._own(case, case.optimizer))
    few = len(optimizers._own(case, case.optimizer, 10.0))
    assert few < own < every
    for count in (every, own, few):
        chosen, plan = optimizers._chosen(case, case.optimizer, 1.0, 60 * count / 1.5 * 1.001)
        assert len(chosen) == count and plan == (30, 2)
        assert any(lane.optimizer.lr == 0.1 for name, _, lane in chosen if name == OWN)


def test_what_cannot_be_raced_says_why() -> None:
    case = small(lr=0.1)
    for bare in (None, replace(case.optimizer, groups=()), replace(case.optimizer, groups=(({}, ("0.weight",)),))):
        with pytest.raises(NotMeasurable, match="no optimizer with a learning rate was seen"):
            raced(replace(case, optimizer=bare), BUDGET)
    with pytest.raises(NotMeasurable, match="no race of learning rates fits 0 s"):
        raced(case, 0.0)
