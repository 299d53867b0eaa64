"""The race over settings: what it tries, who goes on, and that a killed one ends with the same result."""

from __future__ import annotations

import itertools
import math
import sqlite3
from dataclasses import replace

import pytest
import torch
from tests.small import clouds, mlp
from torch import nn

from unstuck.errors import BadArgument
from unstuck.problem import Problem
from unstuck.race.contest import CHECKS, LAST, Result, contest, prepared, survivors
from unstuck.race.grid import Setting, grid, lanes, rates, with_optimizer
from unstuck.race.ledger import Ledger, named
from unstuck.training import Training


def problem(rows: int = 400, size: int = 16) -> Problem:
    torch.manual_seed(0)
    x, y = clouds(rows)
    net = mlp()
    batches = list(zip(x.split(size), y.split(size), strict=True))
    return Problem(net, nn.CrossEntropyLoss(), batches, torch.optim.SGD(net.parameters(), lr=0.1))


SETTINGS = [Setting(name, lr, 16) for name in ("sgd", "adam") for lr in (1e-5, 1e-3, 0.03, 0.1, 1e10)]


def exact() -> tuple[Problem, list[Setting]]:
    """In float64, and no rate at which round-off decides: whichever executor is timed to be fastest gives the same."""
    x, y = clouds(400)
    torch.manual_seed(0)
    net = mlp().double()
    data = list(zip(x.double().split(16), y.split(16), strict=True))
    return Problem(net, nn.CrossEntropyLoss(), data), [setting for setting in SETTINGS if setting.lr < 1]


def run(case: Problem, settings=SETTINGS, **options) -> dict[int, list[Result]]:
    return {seed: results for seed, results, _ in contest(case, settings, **options)}


# --- what is tried ----------------------------------------------------------------------------------------------------


def test_rates_are_evenly_spaced_in_the_logarithm() -> None:
    assert rates("1e-4:1:5") == (1e-4, 1e-3, 1e-2, 0.1, 1.0)
    assert rates("0.3, 0.1,0.3") == (0.3, 0.1) and rates("0.5:2:1") == (0.5,)
    ratios = [b / a for a, b in itertools.pairwise(rates("1e-3:1:10"))]
    assert ratios == pytest.approx([10 ** (1 / 3)] * 9, rel=1e-2)


@pytest.mark.parametrize("text", ["", "fast", "1e-4:1", "1e-4:1:x", "0:1:3", "-1", "1e-4:1:0", "0.1,inf", "1:2:3:4"])
def test_rates_with_a_typo_are_refused(text: str) -> None:
    with pytest.raises(BadArgument, match=r"race: `lr` must be rates such as 0\.1,0\.01 or a range"):
        rates(text)


def test_every_combination_once() -> None:
    settings = grid(problem(), ("sgd", "adam"), (0.1, 0.01), (16, 32))
    assert len(settings) == len(set(settings)) == 8 and settings[1] == Setting("sgd", 0.1, 32)
    assert {setting.batch_size for setting in grid(problem(), ("sgd",), (0.1,))} == {16}


def test_what_the_grid_cannot_try() -> None:
    with pytest.raises(BadArgument, match=r"`optimizers` must be some of sgd, momentum, .*, got lion"):
        grid(problem(), ("sgd", "lion"), (0.1,))
    with pytest.raises(BadArgument, match=r"`batch_size` 512 is too large for the 304 training samples at hand.* 152"):
        grid(problem(), ("sgd",), (0.1,), (512,))
    with pytest.raises(BadArgument, match="`batch_size` must be at least 1, got 0"):
        grid(problem(), ("sgd",), (0.1,), (0,))


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"])
def test_the_code_of_a_setting_makes_the_optimizer_that_was_raced(name: str) -> None:
    case, setting = problem(), Setting(name, 0.05)
    model = case.twin()
    space: dict[str, object] = {"torch": torch, "model": model}
    exec(setting.code(), space)
    raced = Training(with_optimizer(case, setting))
    assert type(space["optimizer"]) is type(raced.optimizer)
    written = space["optimizer"].param_groups[0]
    assert {k: v for k, v in written.items() if k != "params"} == {
        k: v for k, v in raced.optimizer.param_groups[0].items() if k != "params"
    }


def test_a_problem_without_an_optimizer_gets_one_over_all_parameters() -> None:
    case = replace(problem(), optimizer=None)
    raced = Training(with_optimizer(case, Setting("adam", 0.1)))
    assert len(raced.optimizer.param_groups[0]["params"]) == len(list(case.model.parameters()))


def test_lanes_of_one_batch_size_share_their_data() -> None:
    case = problem()
    groups = lanes(case, grid(case, ("sgd", "adam"), (0.1,), (32, 16)))
    assert [places for places, _ in groups] == [[0, 2], [1, 3]]
    assert [len(problems[0].data[0][0]) for _, problems in groups] == [32, 16]
    assert all(len({id(p.data) for p in problems}) == 1 for _, problems in groups)


# --- who goes on ------------------------------------------------------------------------------------------------------


def test_a_full_race_trains_all_to_the_end_as_they_would_alone() -> None:
    case = problem()
    results = run(case, steps=40, seeds=2, full=True)
    assert list(results) == [0, 1] and all(len(each) == len(SETTINGS) for each in results.values())
    for result in results[0]:
        alone = Training(with_optimizer(prepared(case), result.setting))
        alone.advance(40)
        assert result.diverged == alone.diverged or result.setting.lr > 1
        assert result.steps == tuple(40 * k // CHECKS for k in range(1, CHECKS + 1))
        if result.setting.lr < 1:  # beyond, round-off decides
            assert result.train[-1] == pytest.approx(sum(alone.losses[-5:]) / 5, rel=1e-3)
            assert result.held_out[-1] == pytest.approx(alone.score(case.held_out).value, abs=0.011)


def test_the_better_quarter_goes_on_and_runs_with_every_seed() -> None:
    case, settings = problem(), [Setting("sgd", lr, 16) for lr in rates("1e-5:1:24")]
    results = run(case, settings, steps=80, seeds=3)
    ended = {k: sum(len(r.steps) == k for r in results[0]) for k in (1, 3, 8)}
    assert ended == {1: 18, 3: 2, 8: 4}
    final = [r for r in results[0] if len(r.steps) == CHECKS]
    dropped = [r for r in results[0] if len(r.steps) == 1]
    assert min(r.held_out[0] for r in final) >= max(r.held_out[0] for r in dropped)
    assert {r.setting for r in results[1]} == {r.setting for r in results[2]} == {r.setting for r in final}
    assert survivors(results[0], 80)[0] == max(final, key=lambda r: r.score).setting


def test_halving_finds_the_winner_of_the_full_race_or_its_equal() -> None:
    case, settings = problem(800), [Setting(o, lr, 16) for o in ("sgd", "adam") for lr in rates("1e-4:1:9")]
    full, halved = (run(case, settings, steps=120, seeds=1, full=way)[0] for way in (True, False))
    assert max(r.score for r in halved) >= max(r.score for r in full) - 0.01


def test_a_setting_that_diverges_is_told_and_never_wins() -> None:
    results = run(problem(), steps=40, seeds=1, full=True)[0]
    gone = {r.setting for r in results if r.diverged}
    assert Setting("sgd", 1e10, 16) in gone and Setting("sgd", 0.1, 16) not in gone
    assert not gone & set(survivors(results, 40))
    wild = run(problem(), [Setting("sgd", 1e30, 16), Setting("sgd", 1e31, 16)], steps=24, seeds=3)
    assert list(wild) == [0] and all(r.diverged for r in wild[0])


def test_the_same_race_twice_gives_the_same() -> None:
    case, settings = exact()
    before = torch.get_rng_state()
    first, again = (run(case, settings, steps=24, seeds=2) for _ in range(2))
    close = [
        (a.setting, a.steps, a.diverged) == (b.setting, b.steps, b.diverged) and a.score == pytest.approx(b.score)
        for seed in first for a, b in zip(first[seed], again[seed], strict=True)
    ]  # fmt: skip
    assert all(close) and torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("options", [{"steps": 0}, {"seeds": 0}, {"settings": []}])
def test_a_race_of_nothing_is_refused(options) -> None:
    with pytest.raises(BadArgument, match=f"contest: `{next(iter(options))}` must be at least 1, got 0"):
        list(contest(problem(), **{"settings": SETTINGS, **options}))


# --- what a killed race has finished ----------------------------------------------------------------------------------


def test_a_killed_race_goes_on_where_it_was_and_ends_the_same(tmp_path) -> None:
    case, settings = exact()
    name = named(case, settings, 24, False)
    whole = run(case, settings, steps=24, seeds=3)
    ledger = Ledger(tmp_path / "race.sqlite", name)
    for seed, results, who in contest(case, settings, 24, 3):
        ledger.write(seed, results, who)
        if seed == 1:
            break  # killed here
    again, asked = Ledger(tmp_path / "race.sqlite", name), []

    def known(seed: int) -> list[Result] | None:
        asked.append((seed, again.known(seed) is not None))
        return again.known(seed)

    rest = {seed: results for seed, results, _ in contest(case, settings, 24, 3, known=known)}
    assert asked == [(0, True), (1, True), (2, False)]
    for seed in whole:
        assert [r.setting for r in rest[seed]] == [r.setting for r in whole[seed]]
        assert [r.score for r in rest[seed]] == pytest.approx([r.score for r in whole[seed]])
    assert again.executors(0) and again.executors(7) == {}


def test_results_come_back_as_they_were(tmp_path) -> None:
    ledger = Ledger(tmp_path / "deep" / "race.sqlite", "a")
    results = [Result(Setting("adam", 0.1, 8), 3, (5, 10), (0.5, math.nan), (0.25, 0.0), True)]
    ledger.write(3, results, {"all": "loops"})
    (back,) = ledger.known(3)
    assert repr(back) == repr(results[0]) and ledger.known(0) is None


def test_a_folder_with_another_race_is_refused(tmp_path) -> None:
    Ledger(tmp_path / "race.sqlite", "a")
    with pytest.raises(BadArgument, match="holds another race"):
        Ledger(tmp_path / "race.sqlite", "b")
    (tmp_path / "other.sqlite").write_text("no database at all, but long enough to be looked at as one")
    with pytest.raises(BadArgument, match="is no record of a race"):
        Ledger(tmp_path / "other.sqlite", "a")


def test_what_makes_it_another_race() -> None:
    case = problem()
    name = named(case, SETTINGS, 24, False)
    assert name == named(problem(), SETTINGS, 24, False)
    with torch.no_grad():
        moved = problem()
        next(moved.model.parameters()).add_(1e-3)
    assert len({name, named(case, SETTINGS[:2], 24, False), named(case, SETTINGS, 25, False),
                named(case, SETTINGS, 24, True), named(moved, SETTINGS, 24, False),
                named(problem(384), SETTINGS, 24, False)}) == 6  # fmt: skip


def test_the_record_is_plain_sqlite(tmp_path) -> None:
    Ledger(tmp_path / "race.sqlite", "a").write(0, [], {})
    assert sqlite3.connect(tmp_path / "race.sqlite").execute("SELECT count(*) FROM seeds").fetchone() == (1,)
    assert LAST >= 2
