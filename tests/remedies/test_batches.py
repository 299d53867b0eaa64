"""Batches made anew: the same samples, mixed, of the size asked for, and none of the held-out ones."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unstuck.errors import BadArgument
from unstuck.problem import Problem
from unstuck.remedies.batches import larger_batch, rebatched, shuffle, smaller_batch
from unstuck.rows import Rows

X = torch.arange(96.0)[:, None]
DATA = [(X[i : i + 8], X[i : i + 8] // 32) for i in range(0, 96, 8)]


def problem():
    model = nn.Linear(1, 1)
    made = Problem(model, nn.MSELoss(), DATA, optimizer=torch.optim.SGD(model.parameters(), 0.1))
    return replace(made, rows=Rows.of(DATA, 8, ordered=True))


def test_the_same_training_samples_mixed():
    made = problem()
    mixed = shuffle().apply(made)
    before = torch.cat([b[0] for b in made.data]).flatten()
    after = torch.cat([b[0] for b in mixed.data]).flatten()
    assert torch.equal(after.sort().values, before)
    assert not torch.equal(after, before)
    assert all(torch.equal(y, x // 32) for x, y in mixed.data)
    assert not mixed.rows.ordered
    assert {len(b[0]) for b in mixed.data} == {8}


def test_a_larger_batch():
    made = larger_batch(problem(), 32).apply(problem())
    assert {len(b[0]) for b in made.data} == {32}
    assert made.loop.batch_size == 32


def test_too_few_samples():
    with pytest.raises(BadArgument, match="batched anew"):
        rebatched(problem(), 64)


def test_a_smaller_batch_makes_the_more_updates_of_as_many_samples():
    remedy = smaller_batch(problem(), 2)
    made = remedy.apply(problem())
    assert {len(b[0]) for b in made.data} == {2}
    assert remedy.pace == 4.0
    assert made.rows.batch == 2


def test_a_full_batch_seen_at_every_step_is_cut_into_its_samples_once():
    model = nn.Linear(1, 1)
    full = Problem(model, nn.MSELoss(), [(X, X // 32)] * 30, optimizer=torch.optim.SGD(model.parameters(), 0.1))
    made = smaller_batch(full, 8).apply(full)
    assert len(made.data) == 12
    assert torch.equal(torch.cat([b[0] for b in made.data]).flatten().sort().values, X.flatten())
