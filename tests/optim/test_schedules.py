"""Schedules over lanes against torch.optim.lr_scheduler."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from unstuck.optim.schedules import constant, cosine, exponential, stepwise, warmup

TABLE = [
    (lambda o, k: lr_scheduler.StepLR(o, (7, 10)[k], (0.5, 0.1)[k]),
     lambda t: stepwise(t, torch.tensor([7, 10]), torch.tensor([0.5, 0.1], dtype=torch.float64))),
    (lambda o, k: lr_scheduler.ExponentialLR(o, (0.99, 0.9)[k]),
     lambda t: exponential(t, torch.tensor([0.99, 0.9], dtype=torch.float64))),
    (lambda o, k: lr_scheduler.CosineAnnealingLR(o, (40, 25)[k], eta_min=0.2 * 0.01),
     lambda t: cosine(t, torch.tensor([40, 25]), 0.01)),
    (lambda o, k: lr_scheduler.LinearLR(o, 0.1, total_iters=(5, 20)[k]),
     lambda t: warmup(t, torch.tensor([5, 20]), 0.1)),
    (lambda o, k: lr_scheduler.LambdaLR(o, lambda _: 1.0), lambda t: constant(t, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours"), TABLE)
def test_a_schedule_is_its_torch_counterpart(theirs, ours) -> None:
    for lane in range(2):
        optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.2)
        schedule = theirs(optimizer, lane)
        for step in range(25):
            assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * float(ours(step)[lane]), rel=1e-9)
            optimizer.step()
            schedule.step()
