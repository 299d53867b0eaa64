"""Batches too small and too large, each told on a problem that has it and silent beside it."""

from dataclasses import replace

import torch
from tests.small import clouds, mlp, written
from torch import nn

from unstuck.diagnose import PROBES, gather
from unstuck.problem import Problem, state_of
from unstuck.rules import batch_too_large, batch_too_small
from unstuck.training import Training


def evidence(case, steps, monkeypatch):
    """What the two rules need, of a training of so many steps."""
    run = Training(case)
    run.advance(steps)
    loop = replace(case.loop, steps=steps, losses=tuple(run.losses))
    case = replace(case, last=state_of(run.model), loop=loop)
    wanted = {"history", "level", "noise", "averaging"}
    monkeypatch.setattr("unstuck.diagnose.PROBES", tuple(p for p in PROBES if p[0] in wanted))
    return gather(case, case.loop, case.optimizer, float("inf"))[0]


def regression(size, lr):
    """Linear regression with label noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1024, 8, generator=generator)
    y = x.sum(1, keepdim=True) + torch.randn(1024, 1, generator=generator)
    model = nn.Linear(8, 1)
    data = tuple(zip(x.split(size), y.split(size), strict=True))
    case = Problem(model, nn.MSELoss(), data[:64], optimizer=torch.optim.SGD(model.parameters(), lr=lr))
    return replace(case, data=data, held_out=())


def test_a_loss_that_noise_holds_up_is_told(monkeypatch):
    found = batch_too_small.judge(evidence(regression(1, 0.04), 2000, monkeypatch))
    assert found is not None
    assert found.cause == "batch-too-small"
    assert [remedy.id for remedy in found.remedies] == ["larger-batch"]
    assert found.evidence[0].value > found.evidence[1].value


def test_small_batches_at_a_small_rate_are_not(monkeypatch):
    assert batch_too_small.judge(evidence(regression(1, 0.002), 4000, monkeypatch)) is None


def test_larger_batches_are_not(monkeypatch):
    found = evidence(regression(64, 0.1), 200, monkeypatch)
    assert found.averaging is None


def full(size, steps, monkeypatch):
    x, y = clouds(1600)
    return evidence(written(mlp(), x, y, size=size), steps, monkeypatch)


def test_few_updates_of_nearly_all_samples_are_told_with_the_size_that_the_noise_allows(monkeypatch):
    """Where the training begins, 1200 samples say no more than a few dozen."""
    found = batch_too_large.judge(full(800, 10, monkeypatch))
    assert found is not None
    remedy = found.remedies[0]
    assert remedy.id == "smaller-batch"
    assert remedy.pace == 800 / int(remedy.code.removeprefix("batch_size="))
    assert int(remedy.code.removeprefix("batch_size=")) <= 256


def test_usual_batches_are_not_too_large(monkeypatch):
    assert batch_too_large.judge(full(32, 10, monkeypatch)) is None


def test_many_updates_are_not_missing(monkeypatch):
    found = full(800, 10, monkeypatch)
    assert batch_too_large.judge(replace(found, loop=replace(found.loop, steps=batch_too_large.FEW + 1))) is None
