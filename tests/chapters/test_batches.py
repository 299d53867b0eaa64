"""The chapter on batches: the closed form of the size, updates against samples, and what cannot be measured said."""

import math
from dataclasses import replace

import msgspec
import pytest
import torch
from tests.small import clouds, mlp, trained, written
from torch import nn

from unstuck.chapters.batches import chapter
from unstuck.chapters.sizes import raced, recommended
from unstuck.errors import NotMeasurable
from unstuck.evidence import Evidence
from unstuck.probes.sweep import Timing
from unstuck.probes.throughput import Throughput
from unstuck.problem import Problem
from unstuck.records import Chapter


def clock(fixed=1e-3, per_sample=1e-5, sizes=(1, 4, 16, 64, 256, 1024), present=16):
    timings = tuple(Timing(b, fixed + per_sample * b, 1e-6, 9, 1000 * b) for b in sizes)
    return Throughput(timings, (), present, 1024, 1, "SGD", "", "cpu", 1, "samples", "")


def problem(size=32, rows=1600, lr=0.05):
    x, y = clouds(rows)
    case = written(mlp(), x, y, size=size)
    return replace(case, optimizer=case.optimizer.using(torch.optim.SGD, lr=lr))


def test_the_size_is_where_the_time_to_a_loss_is_least():
    for critical in (10.0, 100.0, 1000.0):
        found = recommended(critical, clock())

        def seconds(b, critical=critical):
            return (1e-3 + 1e-5 * b) * (1 + critical / b)

        assert seconds(found) <= 1.03 * min(seconds(b) for b in range(1, 1025))
    assert recommended(1e9, clock()) == 1024
    assert recommended(1e-9, clock()) == 1


def test_no_size_where_time_does_not_grow():
    with pytest.raises(NotMeasurable, match="as long at every batch size"):
        recommended(100.0, clock(per_sample=0.0))
    with pytest.raises(NotMeasurable, match="as long at every batch size"):
        recommended(100.0, clock(sizes=(16,)))


def test_small_batches_make_the_more_updates_of_as_many_samples():
    found = raced(problem(), (8, 32, 128), clock(present=32), budget_s=60.0)
    assert found.sizes == (8, 32, 128)
    assert all(len(lane.runs[0].losses) == found.samples // lane.size for lane in found.lanes)
    rates = {(lane.size, lane.scaling): lane.lr for lane in found.lanes}
    assert rates[128, "in proportion"] == pytest.approx(0.2)
    assert rates[8, "by the square root"] == pytest.approx(0.025)
    assert [lane.scaling for lane in found.lanes if lane.size == 32] == ["as it is"]
    best = [found.best(size).end.mean for size in found.sizes]
    assert found.target == max(best)
    for size in found.sizes:
        updates = found.updates(size, found.target).mean
        assert 0 < updates <= found.samples // size
        assert found.updates(size, -1.0).mean == found.samples // size


def test_a_race_that_does_not_fit_and_no_rate_are_said():
    with pytest.raises(NotMeasurable, match=r"a race of batch sizes up to 128 takes .* s, there are 1"):
        raced(problem(), (8, 32, 128), clock(fixed=0.1, present=32), budget_s=1.0)
    with pytest.raises(NotMeasurable, match="no optimizer with a learning rate was seen"):
        raced(replace(problem(), optimizer=None), (8, 32), clock(present=32), budget_s=10.0)
    with pytest.raises(NotMeasurable, match="only one batch size could be timed"):
        raced(problem(), (8, 32), clock(sizes=(32,), present=32), budget_s=10.0)


def test_the_chapter_says_noise_time_and_size_and_survives_json():
    case = trained(problem(lr=0.1), 80)
    found = chapter(case, Evidence(case.loop, case), budget_s=12.0)
    text = " ".join(found.sentences)
    for said in ("gradient noise scale", "an epoch is shortest at", "Loss by batch size", "Sharpness", "soonest"):
        assert said in text
    assert "Not measured" not in text
    names = [figure.name for figure in found.figures]
    assert "critical batch size along the training" in names
    assert "recommended batch size" in names
    assert len(found.charts) >= 3
    assert msgspec.json.decode(msgspec.json.encode(found), type=Chapter) == found
    assert all(figure.value is None or math.isfinite(figure.value) for figure in found.figures)


def test_what_cannot_be_cut_is_said_and_the_rest_measured():
    """Each batch has a shape of its own."""
    generator = torch.Generator().manual_seed(0)

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Linear(1, 1)

        def forward(self, x):
            return self.scale(x.mean(1, keepdim=True))

    data = [(torch.randn(16, n, generator=generator), torch.zeros(16, 1)) for n in range(2, 14)]
    model = Mean()
    case = Problem(model, nn.MSELoss(), data, optimizer=torch.optim.SGD(model.parameters(), 0.1))
    found = chapter(case, Evidence(case.loop, case), budget_s=4.0)
    assert any(sentence.startswith("Not measured: ") for sentence in found.sentences)
    assert found.advice is None
    assert any("no other size was timed" in sentence for sentence in found.sentences)
