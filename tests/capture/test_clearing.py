"""Cleared or not is told right for every way of clearing, for accumulation, and for two optimizers in turn."""

import pytest
import torch
from torch import nn

from unstuck.capture.clearing import Clearing


def run(clear, steps=4, backwards=1, clear_inside=lambda model: None):
    """A loop that reports to a Clearing; `clear(model)` is called before each step's first backward."""
    model, clearing = nn.Linear(3, 1), Clearing()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(steps):
        clear(model)
        for part in range(backwards):
            if part:
                clear_inside(model)
            loss = model(torch.randn(8, 3)).square().mean()
            clearing.before_backward(loss)
            loss.backward()
        clearing.before_step(optimizer, backwards)
        optimizer.step()
        clearing.follow(optimizer)
    return clearing


WAYS = {
    "zero_grad": lambda model: model.zero_grad(),
    "zero_grad in place": lambda model: model.zero_grad(set_to_none=False),
    "grad = None": lambda model: [setattr(p, "grad", None) for p in model.parameters()],
    "data.zero_()": lambda model: [p.grad.data.zero_() for p in model.parameters() if p.grad is not None],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backwards", [1, 3])
def test_every_way_of_clearing_counts(way, backwards):
    clearing = run(WAYS[way], backwards=backwards)
    assert clearing.cleared == [True] * 3
    assert not any(clearing.discarded)


@pytest.mark.parametrize("backwards", [1, 3])
def test_no_clearing_is_seen(backwards):
    assert run(lambda model: None, backwards=backwards).cleared == [False] * 3


@pytest.mark.parametrize("way", WAYS)
def test_gradients_cleared_between_the_backwards_of_a_step_are_discarded(way):
    clearing = run(WAYS[way], backwards=3, clear_inside=WAYS[way])
    assert clearing.discarded == [True] * 3
    assert all(clearing.cleared)


@pytest.mark.parametrize("forget", [False, True])
def test_two_optimizers_in_turn_are_told_apart(forget):
    """As in a GAN: the second loss does not reach the first model, whose old gradient is still there meanwhile."""
    one, two, clearing = nn.Linear(3, 1), nn.Linear(3, 1), Clearing()
    optimizers = [torch.optim.SGD(m.parameters(), 0.01) for m in (one, two)]
    for _ in range(4):
        for model, optimizer in zip((one, two), optimizers, strict=True):
            if not (forget and model is one):
                optimizer.zero_grad()
            loss = model(torch.randn(8, 3)).square().mean()
            clearing.before_backward(loss)
            loss.backward()
            clearing.before_step(optimizer, 1)
            optimizer.step()
            clearing.follow(optimizer)
    assert len(clearing.cleared) == 6
    assert sum(clearing.cleared) == (3 if forget else 6)


def test_without_a_gradient_nothing_is_followed():
    clearing, model = Clearing(), nn.Linear(2, 1)
    clearing.follow(torch.optim.SGD(model.parameters(), 0.1))
    assert not clearing.following


def test_another_loss_may_add_to_old_gradients_that_are_cleared_before_the_step():
    """As in a GAN: the generator's loss runs through the discriminator, whose zero_grad comes after it."""
    generator, critic, clearing = nn.Linear(3, 3), nn.Linear(3, 1), Clearing()
    ours, its = (torch.optim.SGD(m.parameters(), 0.01) for m in (generator, critic))
    for _ in range(4):
        made = generator(torch.randn(8, 3))
        for optimizer, source in ((its, made.detach()), (ours, made)):
            optimizer.zero_grad()
            loss = critic(source).square().mean()
            clearing.before_backward(loss)
            loss.backward()
            clearing.before_step(optimizer, 1)
            optimizer.step()
            clearing.follow(optimizer)
    assert clearing.cleared == [True] * 6
    assert not clearing.discarded
