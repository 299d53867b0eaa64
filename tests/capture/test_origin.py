"""Rows that are drawn beyond the recorded batches belong together: each label stands beside its own input."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unstuck.capture import meter
from unstuck.capture.assemble import assemble
from unstuck.capture.origin import _redrawn
from unstuck.capture.seen import Origin
from unstuck.capture.watch import Watch
from unstuck.problem import Problem
from unstuck.recorder import Recorder
from unstuck.tape import link

ROWS, BATCH = 512, 16


def watched(monkeypatch: pytest.MonkeyPatch, allowance: float) -> Problem:
    """A training on rows of two tensors; the label of each is its first column."""
    monkeypatch.setattr(meter, "ALLOWANCE_S", allowance)
    torch.manual_seed(0)
    y = torch.arange(ROWS) % 10
    x = torch.cat([y[:, None].float(), torch.randn(ROWS, 3)], 1)
    model = nn.Linear(4, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Watch() as watch:
        for i in torch.randperm(ROWS).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[i]), y[i]).backward()
            optimizer.step()
    problem = assemble(watch).problem
    assert problem is not None
    return problem


@pytest.mark.parametrize("allowance", [1.0, -100.0], ids=["many steps recorded", "the first step dear"])
def test_labels_stay_beside_their_inputs(monkeypatch: pytest.MonkeyPatch, allowance: float) -> None:
    """Where the first step was dear (a GPU loads its kernels), none after it may be recorded from its midst on."""
    problem = watched(monkeypatch, allowance)
    for inputs, labels in (*problem.data, *problem.held_out):
        assert torch.equal(inputs[:, 0].long(), labels)


def test_a_step_that_is_not_to_be_recorded_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [step for step, _ in watched(monkeypatch, -100.0).recorded] == [0]


def test_a_leaf_of_unknown_making_is_not_held_beside_other_samples() -> None:
    """Labels are seen to be picked, their inputs are not: no more is drawn, rather than labels beside any input."""
    x, y, pick = torch.randn(ROWS, 4), torch.arange(ROWS), torch.arange(BATCH)
    inputs = x[pick]
    with Recorder(100) as recorder:
        labels = y[pick]
        scaled = inputs * 2
    linked = link(recorder.calls)
    known = Origin(linked, (linked.number(labels),), None, ())
    assert next(batch[0].tolist() for batch in _redrawn(known, BATCH)) == list(range(BATCH))
    assert not _redrawn(Origin(linked, (linked.number(scaled), linked.number(labels)), None, ()), BATCH)
