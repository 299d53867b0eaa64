"""Larger batches lower a loss that noise holds up, by the factor that is known, and no other."""

import time
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from torch import nn

from unstuck.errors import NotApplicable, NotMeasurable
from unstuck.probes.averaging import measure
from unstuck.problem import Problem, state_of
from unstuck.training import Training


def noisy(lr=0.03, size=1, width=8, weight=None):
    """Linear regression with label noise: plain descent on single samples stands above the least loss."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1024, width, generator=generator)
    y = x.sum(1, keepdim=True) + torch.randn(1024, 1, generator=generator)
    model = nn.Linear(width, 1)
    data = list(zip(x.split(size), y.split(size), strict=True))
    case = Problem(model, nn.MSELoss(), data, optimizer=torch.optim.SGD(model.parameters(), lr=lr))
    case = replace(case, data=tuple(data), held_out=())
    run = Training(case)
    run.advance(1500)
    return replace(case, last=state_of(run.model))


def test_what_noise_holds_up_comes_down():
    found = measure(noisy(), budget_s=20.0)
    assert (found.batch, found.larger, found.updates) == (1, 16, 200)
    # The excess over the least loss of 1 goes as 1 / batch size at a small rate, and faster at a large one.
    assert fmean(found.present) - 1 > 8 * (fmean(found.averaged) - 1) > 0
    assert found.sure


def test_what_something_else_holds_up_stays():
    case = noisy(lr=1e-4)
    found = measure(case, budget_s=20.0)
    assert fmean(found.averaged) == pytest.approx(fmean(found.present), rel=0.05)


def test_large_batches_and_loops_without_steps_are_not_asked():
    with pytest.raises(NotApplicable):
        measure(noisy(size=64))
    case = noisy(size=4)
    with pytest.raises(NotApplicable):
        measure(replace(case, loop=replace(case.loop, accumulate=16)))
    with pytest.raises(NotApplicable):
        measure(replace(case, optimizer=None))


def test_too_few_samples_and_a_training_that_diverges_are_said():
    case = noisy(size=4)
    with pytest.raises(NotApplicable, match="cannot be put into larger batches"):
        measure(replace(case, data=case.data[:3]))
    assert case.optimizer is not None
    with pytest.raises(NotMeasurable, match="diverges when it goes on"):
        measure(replace(case, optimizer=case.optimizer.scaled(1e6)))


class Slow(nn.Linear):
    """Takes so many seconds a call, and so many a sample."""

    def __init__(self, call: float, sample: float):
        super().__init__(8, 1)
        self.call, self.sample = call, sample

    def forward(self, x):
        time.sleep(self.call + len(x) * self.sample)
        return super().forward(x)


def slow(call=0.0, sample=0.0):
    x = torch.randn(1024, 8, generator=torch.Generator().manual_seed(0))
    model = Slow(call, sample)
    data = list(zip(x.split(4), x.sum(1, keepdim=True).split(4), strict=True))
    case = Problem(model, nn.MSELoss(), data, optimizer=torch.optim.SGD(model.parameters(), lr=0.01))
    return replace(case, last=state_of(case.model))


def test_the_larger_batch_is_the_largest_that_time_allows():
    assert measure(slow(), budget_s=3.0).larger == 64
    began = time.perf_counter()
    assert measure(slow(sample=1e-3), budget_s=3.0).larger in (16, 32)  # 60 updates on 4 and 64 samples: 4.1 s
    assert time.perf_counter() - began < 9.0


def test_updates_that_take_too_long_are_said():
    with pytest.raises(NotMeasurable, match=r"an update on 4 batches at once takes 0\.0\d+ s"):
        measure(slow(call=0.02), budget_s=0.5)


def test_the_problem_is_left_as_it_was():
    case, before = noisy(size=4), torch.get_rng_state()
    measure(case, budget_s=1.0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(p, case.last[n]) for n, p in case.twin(last=True).named_parameters())
