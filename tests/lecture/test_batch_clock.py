from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.benchmark import Timer

from unstuck.lecture import batch_clock
from unstuck.lecture.parts import Parts, english
from unstuck.problem import Problem


def tick(what: str, share: float) -> None:
    pass


@pytest.fixture(scope="module")
def parts() -> Parts:
    """The clearest of up to five: what else the machine does comes and goes, and widens the errors."""
    for _ in range(5):
        found = batch_clock.shown(english, budget_s=2.0)
        if all(claim.held for claim in found.claims):
            break
    return found


def test_every_claim_holds(parts: Parts) -> None:
    assert [claim.held for claim in parts.claims] == [True, True]


def test_an_epoch_is_its_updates_by_the_time_of_one(parts: Parts) -> None:
    updates, epochs = (dict(zip(curve.x, curve.y, strict=True)) for curve in
                       (parts.charts[0].curves[0], parts.charts[1].curves[0]))  # fmt: skip
    assert updates.keys() == epochs.keys() and {1.0, 64.0, 2048.0} <= updates.keys()
    for size, milliseconds in updates.items():
        assert epochs[size] == pytest.approx(60_000 / size * milliseconds / 1000)
    assert parts.claims[1].left.value == pytest.approx(epochs[1.0])
    assert parts.claims[1].right.value == pytest.approx(4 * min(epochs.values()))


def test_the_clock_agrees_with_a_plain_loop() -> None:
    """Within a factor of five, in one of five tries: the machine may be busy with other things during either."""
    problem = batch_clock.network()
    model, loss = problem.twin(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = problem.data[0]

    def update() -> None:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    timer = Timer("update()", globals={"update": update}, num_threads=1)
    for _ in range(5):  # what else the machine does comes and goes
        plain = 1000 * timer.blocked_autorange(min_run_time=0.2).median
        claimed = batch_clock.shown(english, budget_s=1.0).claims[0].left
        assert "64" in claimed.name and claimed.value is not None
        if plain / 5 < claimed.value < plain * 5:
            return
    pytest.fail(f"the clock says {claimed.value} ms, a plain loop {plain} ms")


def test_on_a_training_of_ones_own() -> None:
    x, y = torch.randn(256, 12), torch.randn(256, 1)
    model = nn.Linear(12, 1)
    data = list(zip(x.split(32), y.split(32), strict=True))
    problem = Problem(model, nn.MSELoss(), data, optimizer=torch.optim.SGD(model.parameters(), 0.1))
    parts = batch_clock.on(problem, english, 1.0, tick)
    assert [claim.held for claim in parts.claims] == [True] and len(parts.charts) == 2
    assert "Your batches hold 32 samples" in parts.notes[0]


def test_a_training_whose_batches_cannot_be_cut_is_told_so() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Linear(1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale(x.mean(1, keepdim=True))

    model = Mean()
    data = [(torch.randn(16, length), torch.zeros(16, 1)) for length in range(2, 10)]
    problem = Problem(model, nn.MSELoss(), data, optimizer=torch.optim.SGD(model.parameters(), 0.1))
    parts = batch_clock.on(problem, english, 1.0, tick)
    assert not parts.claims and "Only batches of 16 could be timed" in parts.notes[0]


def test_a_training_that_does_not_run_is_told_so() -> None:
    model = nn.Linear(3, 1)
    data = [(torch.randn(4, 5), torch.randn(4, 1))] * 4
    problem = Problem(model, nn.MSELoss(), data, optimizer=torch.optim.SGD(model.parameters(), 0.1))
    parts = batch_clock.on(problem, english, 1.0, tick)
    assert not parts.claims and parts.notes[0].startswith("Not measured: an update at the batch size of 4 failed")
