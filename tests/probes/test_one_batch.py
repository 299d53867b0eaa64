"""One batch by heart: possible for a sound network whatever the labels, not for one without a gradient."""

from dataclasses import replace

import pytest
import torch
from tests.small import clouds, mlp, written
from torch import nn

from unstuck.errors import UnstuckError
from unstuck.probes.one_batch import measure


def test_any_labels_can_be_learnt_by_heart():
    x, y = clouds(128)
    found = measure(written(mlp(), x, y[torch.randperm(128)]), budget_s=4)
    assert found.learnt and found.adam_loss < 0.5 * found.loss and found.samples == 32


def test_a_network_that_passes_no_gradient_cannot():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(24, 1), nn.Linear(1, 4)

        def forward(self, x):
            return self.head(self.body(x).detach() * 0)

    found = measure(written(Cut(), *clouds(128)), budget_s=2)
    assert not found.learnt


def test_a_step_that_diverges_is_no_reason_to_blame_the_network():
    case = written(mlp(), *clouds(128))
    found = measure(replace(case, optimizer=case.optimizer.using(torch.optim.SGD, lr=1e6)), budget_s=4)
    assert found.own_loss > found.loss and found.learnt


def test_without_an_optimizer_it_is_refused():
    with pytest.raises(UnstuckError, match="optimizer"):
        measure(replace(written(mlp(), *clouds(64)), optimizer=None))
