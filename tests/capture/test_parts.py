"""Norms of the gradients that a loop adds up: the first one's and their mean's, as autograd gives them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import unstuck
from unstuck.capture.assemble import assemble
from unstuck.probes.noise import measure


def captured(change="", parts=4, steps=12):
    """A loop that adds up the gradients of `parts` batches; and the norms it would have to be seen with."""
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = torch.randn(960, 5), torch.randint(0, 3, (960,))
    true = []
    with unstuck.watch(model, optimizer, share=50.0) as watch:
        for step in range(steps):
            norms = []
            for part in range(parts):
                rows = torch.randint(0, 960, (8,))
                (F.cross_entropy(model(x[rows]), y[rows]) / 2).backward()
                norms.append(torch.cat([p.grad.flatten().clone() for p in model.parameters()]))
                if change == "discarded" and part < parts - 1:
                    optimizer.zero_grad()
            true.append((step + 1, float(norms[0].norm()), float(norms[-1].norm()) / parts))
            if change == "clipped":
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            if change != "uncleared":
                optimizer.zero_grad()
    return assemble(watch._watch).problem, true


def test_the_norms_are_those_of_the_first_gradient_and_of_their_mean():
    problem, true = captured()
    assert len(problem.loop.parts) >= 8
    known = {step: norms for step, *norms in true}
    for step, first, mean in problem.loop.parts:
        assert (first, mean) == pytest.approx(known[step], rel=1e-5)
    free = measure(problem).free
    assert free is not None
    assert free.freedom == len(problem.loop.parts) - 1


@pytest.mark.parametrize("change", ["clipped", "discarded", "uncleared"])
def test_gradients_that_something_else_changed_say_nothing(change):
    assert captured(change)[0].loop.parts == ()


def test_a_loop_that_adds_up_nothing_has_none():
    problem, _ = captured(parts=1)
    assert problem.loop.parts == ()
    assert measure(problem).free is None
