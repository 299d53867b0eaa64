"""An update is the loop's own: the same weights as training by hand; what it keeps, counted by hand."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unstuck.errors import UnstuckError
from unstuck.loop import Clip
from unstuck.probes.update import Update
from unstuck.problem import Problem, state_of


def batch(size=12, columns=20, classes=10):
    generator = torch.Generator().manual_seed(size)
    labels = torch.randint(0, classes, (size,), generator=generator)
    return torch.randn(size, columns, generator=generator), labels


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 10))


def problem(model=None, make=torch.optim.Adam, **options):
    model = model or mlp()
    optimizer = make(model.parameters(), **options) if make else None
    return Problem(model, nn.CrossEntropyLoss(), [batch()], optimizer=optimizer)


PARAMETERS = 20 * 64 + 64 + 64 * 10 + 10


def saved(size):
    """Input, hidden values (once, though both ReLU and Linear keep them), log-probabilities, labels, Σ of weights."""
    return 4 * size * (20 + 64 + 10) + 8 * size + 4


def test_it_is_the_update_that_the_loop_makes():
    case = problem(make=torch.optim.SGD, lr=0.1, momentum=0.9)
    case = replace(case, loop=replace(case.loop, accumulate=3, clip=Clip("norm", 0.5)))
    model, update = mlp(), Update(case)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = batch()
    for _ in range(2):
        optimizer.zero_grad()
        for _ in range(3):
            nn.functional.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        update((x, y))
    for name, value in state_of(model).items():
        assert torch.equal(value, state_of(update.model)[name])


def test_reset_gives_the_first_weights_back():
    model = nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    update = Update(problem(model, torch.optim.SGD, lr=1e30))
    update(batch())
    assert not all(p.isfinite().all() and p.abs().max() < 1e6 for p in update.model.parameters())
    update.reset()
    assert all(torch.equal(value, state_of(update.model)[name]) for name, value in state_of(model).items())
    assert all(p.grad is None for p in update.model.parameters())


@pytest.mark.parametrize("size", [1, 12, 100])
def test_memory_is_what_is_saved_and_gradients_and_moments(size):
    plain, adam = Update(problem(make=torch.optim.SGD, lr=0.1)), Update(problem(lr=0.1))
    assert plain.memory(batch(size)) == saved(size) + 4 * PARAMETERS
    for _ in range(2):  # the same again when the optimizer has its state
        assert adam.memory(batch(size)) == saved(size) + 4 * PARAMETERS * 3 + 4 * 4  # four parameters' step counts


def test_without_a_step_there_is_no_state_and_the_reason_is_said():
    bare, lbfgs = Update(problem(make=None)), Update(problem(make=torch.optim.LBFGS))
    assert bare.without == "no optimizer was seen" and "LBFGS" in lbfgs.without
    for update in (bare, lbfgs):
        assert update.memory(batch()) == saved(12) + 4 * PARAMETERS
        assert update.seconds(batch()) > 0
        assert all(torch.equal(p, q) for p, q in zip(update.model.parameters(), mlp().parameters(), strict=True))


def test_sparse_gradients_count_what_they_hold():
    model = nn.Sequential(nn.Embedding(1000, 8, sparse=True), nn.Flatten(), nn.Linear(8, 10))
    case = Problem(model, nn.CrossEntropyLoss(), [batch()], optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    assert Update(case).memory((torch.arange(12)[:, None], batch()[1])) < 4 * 1000 * 8


def test_a_loss_without_gradient_is_refused():
    case = Problem(mlp(), lambda output, target: output.detach().sum(), [batch()])
    with pytest.raises(UnstuckError, match="no gradient"):
        Update(case).seconds(batch())
