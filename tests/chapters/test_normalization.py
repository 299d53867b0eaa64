"""The chapter on normalization: who is raced, honest momenta in short races, and what cannot be raced said."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import torch
from tests.small import clouds, written
from torch import nn

from unstuck.chapters import normalization as chapters
from unstuck.chapters import normalizers, statistics
from unstuck.chapters.normalization import chapter
from unstuck.chapters.normalizers import Lane, raced, remedies
from unstuck.chapters.plan import Plan
from unstuck.errors import NotMeasurable
from unstuck.evidence import Evidence
from unstuck.probes.normalization import measure
from unstuck.probes.statistics import LEFT, left_of_start, norms
from unstuck.problem import Problem, state_of
from unstuck.race.trials import Level
from unstuck.records import Chapter, Verdict
from unstuck.remedies.look import look
from unstuck.training import Training

BUDGET = 6.0


def network(*norm: nn.Module, depth: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    hidden = [layer for _ in range(depth - 1) for layer in (nn.Linear(32, 32), nn.ReLU())]
    return nn.Sequential(nn.Linear(24, 32), *norm, nn.ReLU(), *hidden, nn.Linear(32, 4))


def problem(model: nn.Module, size: int = 32, steps: int = 0, lr: float = 0.01, shift: float = 0.0) -> Problem:
    """With the state after so many steps as its last."""
    x, y = clouds(640)
    case = written(model, x + shift, y, size=size)
    case = replace(case, optimizer=case.optimizer.using(torch.optim.Adam, lr=lr))
    run = Training(case)
    run.advance(steps)
    loop = replace(case.loop, steps=steps, backwards=steps, losses=tuple(run.losses))
    return replace(case, last=state_of(run.model), loop=loop)


def told(case: Problem, budget_s: float = BUDGET) -> Chapter:
    return chapter(case, Evidence(case.loop, case), budget_s)


@pytest.fixture(scope="module")
def small():
    case = problem(network(nn.BatchNorm1d(32), nn.Dropout(0.05)), size=2, steps=60)
    before = state_of(case.model), {name: tensor.clone() for name, tensor in case.last.items()}, torch.get_rng_state()
    return case, before, told(case), torch.get_rng_state()


def test_small_batches_are_told_and_larger_ones_raced(small) -> None:
    found = small[2]
    text = " ".join(found.sentences)
    assert "1 BatchNorm layer, batches of 2." in text
    assert "Momentum 0.1 over 60 batches: of the running statistics 0.2% is still their start." in text
    assert "From batch to batch the mean of layer 1 moves by 0." in text and "In batches of other sizes" in text
    assert "Batches of 1 cannot be normalized (ValueError" in text
    assert "On the same samples evaluation mode changes the loss by " in text
    for lane in ("as it is", "exact-statistics", "larger-batch", "group-norm", "layer-norm", "freeze-statistics"):
        assert f"{lane} 0." in text, text
    assert "Clearly lower training loss: larger-batch, group-norm, layer-norm" in text
    assert found.id == "normalization" and found.title == chapters.TITLE


def test_its_charts_hold_noise_distances_and_the_race(small) -> None:
    noise, means, variances, scores, losses = small[2].charts
    one, theory = noise.curves
    assert one.name == "1" and theory.y[0] == pytest.approx(2**-0.5)
    assert all(a == pytest.approx(b, rel=0.35) for a, b in zip(one.y, theory.y, strict=True))
    assert means.bars and variances.bars and [curve.name for curve in means.curves] == ["1"]
    assert [curve.name for curve in scores.curves] == [curve.name for curve in losses.curves]
    assert scores.curves[0].name == "as it is"


def test_nothing_of_the_problem_is_changed_and_the_chapter_survives_json(small) -> None:
    case, before, found, generator = small
    assert all(torch.equal(before[0][name], tensor) for name, tensor in state_of(case.model).items())
    assert all(torch.equal(before[1][name], tensor) for name, tensor in case.last.items())
    assert torch.equal(before[2], generator)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Chapter) == found


def test_statistics_that_lag_are_mended_at_the_end_or_by_their_momentum() -> None:
    case = problem(network(nn.BatchNorm1d(32, momentum=1e-4)), steps=100, shift=20.0)
    found = raced(case, measure(case), BUDGET)
    lanes = {lane.name: lane for lane in found.lanes}
    assert lanes["exact-statistics"].verdict.outcome in {"cured", "helped"}
    assert lanes["batchnorm-momentum"].verdict.outcome in {"cured", "helped"}
    # They are the same training but for what evaluation goes by.
    assert lanes["exact-statistics"].loss == found.present.loss
    assert lanes["batchnorm-momentum"].loss.mean == pytest.approx(found.present.loss.mean, rel=1e-4)
    assert chapters._advice(found).id == "exact-statistics"


def test_normalization_is_put_in_where_there_is_none_and_depth_kills_the_signal() -> None:
    case = problem(network(depth=16), steps=30, lr=0.003)
    found = told(case, 2 * BUDGET)
    text = " ".join(found.sentences)
    assert "no normalization" in text and "with BatchNorm put in, at the start 1" in text
    assert found.advice is not None and found.advice.id in {"insert-batch-norm", "insert-layer-norm"}
    scale, *_ = found.charts
    start, _, batch = scale.curves
    assert start.y[-1] < 0.5 * start.y[0] and batch.y[-1] == pytest.approx(batch.y[0], rel=0.1)


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(24, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.batch_norm(self.first(x), None, None, training=True).relu())


class Last(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)[0][:, -1])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (network(nn.LayerNorm(32)), "No BatchNorm layer; layer_norm normalizes"),
        (nn.Linear(24, 4), "there is no place where one is usual"),
        (Last(nn.Sequential(nn.Unflatten(1, (6, 4)), nn.LSTM(4, 8, batch_first=True))), "there is no place"),
        (ByHand(), "its statistics are out of sight"),
    ],
)
def test_other_networks_are_told_in_a_sentence(model: nn.Module, said: str) -> None:
    found = told(problem(model))
    assert said in found.sentences[0] and len(found.sentences) == 1
    assert not found.charts and found.advice is None


def test_batches_of_one_cannot_train_and_that_is_said() -> None:
    x, y = clouds(64)
    model = network(nn.BatchNorm1d(32))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    case = Problem(model, nn.CrossEntropyLoss(), list(zip(x.split(1), y.split(1), strict=True)), optimizer=optimizer)
    found = told(case)
    text = " ".join(found.sentences)
    assert "Expected more than 1 value per channel" in text and found.advice is None


def test_frozen_and_untracked_layers_are_named() -> None:
    case = problem(network(nn.BatchNorm1d(32), nn.BatchNorm1d(32, track_running_stats=False)))
    case = replace(case, loop=replace(case.loop, training={**case.loop.training, "1": False}))
    text = told(case, 0.0).sentences[0]
    assert "Frozen while the model trains: layer 1, 1 with the mean 0 and variance 1 they were made with." in text
    assert "in evaluation too: layer 2." in text


def test_what_cannot_be_raced_says_why() -> None:
    case = problem(network(nn.BatchNorm1d(32)))
    found = measure(case)
    with pytest.raises(NotMeasurable, match="no optimizer steps were seen"):
        raced(replace(case, optimizer=None), found, BUDGET)
    with pytest.raises(NotMeasurable, match=r"an update takes .* s: no race of normalizations fits 0 s"):
        raced(case, found, 0.0)
    alone = replace(case, data=case.data[:1])
    assert "larger-batch" in dict(raced(alone, found, BUDGET / 6).refused)
    sequences = problem(nn.Linear(24, 4))
    with pytest.raises(NotMeasurable, match="insert-batch-norm: no linear or convolutional layer leads"):
        raced(sequences, measure(sequences), BUDGET)


def test_where_time_is_short_the_last_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalizers, "seconds_a_step", lambda case, steps: 1e-3)
    case = problem(network(nn.BatchNorm1d(32)))
    # Two plain trainings, one with exact statistics, one with GroupNorm: 4.5 ms; 30 updates with 2 seeds.
    found = raced(case, measure(case), 60 * 4.5e-3 * 1.01)
    assert [lane.name for lane in found.lanes] == ["exact-statistics", "group-norm"] and found.plan == (30, 2)
    assert [name for name, _ in found.refused] == ["layer-norm", "freeze-statistics", "larger-batch"]
    assert {why for _, why in found.refused} == {"no time was left for it"}


def test_remedies_fit_the_network() -> None:
    def names(model: nn.Module, size: int = 32) -> list[str]:
        case = problem(model, size)
        return [remedy.id for remedy in remedies(case, measure(case))]

    assert names(network()) == ["insert-batch-norm", "insert-layer-norm"]
    assert names(network(nn.BatchNorm1d(32)))[-1] == "larger-batch"
    assert names(network(nn.BatchNorm1d(32)), 4)[1:3] == ["larger-batch", "group-norm"]
    assert "batchnorm-momentum" in names(network(nn.BatchNorm1d(32, momentum=1e-3)))
    assert names(network(nn.BatchNorm1d(32, track_running_stats=False))) == ["group-norm", "layer-norm", "larger-batch"]
    case = problem(network(nn.BatchNorm1d(32)))
    case = replace(case, loop=replace(case.loop, training={**case.loop.training, "1": False}))
    frozen = [remedy.id for remedy in remedies(case, measure(case))]
    assert frozen[1] == "unfreeze-batchnorm" and "freeze-statistics" not in frozen
    narrow = nn.Sequential(nn.Linear(24, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))
    assert "group-norm" not in names(narrow)  # one group of all channels is LayerNorm


def test_of_many_layers_some_are_drawn_evenly_spaced() -> None:
    layers = [layer for _ in range(40) for layer in (nn.Linear(24, 24), nn.BatchNorm1d(24))]
    case = problem(nn.Sequential(*layers, nn.Linear(24, 4)))
    found = told(case, 0.0)
    assert len([f for f in found.figures if f.name.startswith("noise")]) == statistics.LISTED
    means = next(chart for chart in found.charts if chart.title.startswith("Running means"))
    assert means.curves[0].name == "1" and means.curves[-1].name == "79" and len(means.curves) == statistics.LISTED


@pytest.mark.parametrize("momentum", [1e-4, 1e-3, 0.01, 0.1])
def test_a_short_race_leaves_as_much_of_the_start_as_the_script(momentum: float) -> None:
    case = problem(network(nn.BatchNorm1d(32, momentum=momentum)))
    long = replace(case, loop=replace(case.loop, steps=1000))
    (norm,) = norms(normalizers._paced(long, 100).model).values()
    wanted = max(left_of_start(momentum, 1000), LEFT)
    assert left_of_start(norm.momentum, 100) == pytest.approx(min(wanted, left_of_start(momentum, 100)))
    assert normalizers._paced(long, 1000) is long and norms(long.model)["1"].momentum == momentum


def lane(name: str, outcome: str, mean: float, error: float = 0.01) -> Lane:
    return Lane(name, look(name, name, name), Level(mean, error, 3), Level(1.0, 0.0, 3), Verdict(outcome))


def test_advice_is_the_smallest_change_that_is_as_good_as_the_best() -> None:
    present = lane("as it is", "not-tried", 0.5)

    def advice(*lanes: Lane) -> str | None:
        found = chapters._advice(normalizers.Raced(Plan(60, 3), "accuracy", present, lanes))
        return found.id if found is not None else None

    assert advice(lane("a", "helped", 0.88), lane("b", "cured", 0.9)) == "a"
    assert advice(lane("a", "helped", 0.8), lane("b", "cured", 0.9)) == "b"
    assert advice(lane("a", "undecided", 0.9), lane("b", "no-effect", 0.5), lane("c", "worse", 0.1)) is None
