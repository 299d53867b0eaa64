"""A problem keeps nothing of the user's and says clearly what it cannot use."""

import pytest
import torch
from torch import nn

import unstuck

X, Y = torch.randn(8, 4), torch.randint(0, 3, (8,))


def problem(**options):
    model = nn.Linear(4, 3)
    return unstuck.Problem(model, nn.CrossEntropyLoss(), [(X, Y)] * 8, **options)


def test_the_model_is_a_copy():
    model = nn.Linear(4, 3)
    made = unstuck.Problem(model, nn.CrossEntropyLoss(), [(X, Y)])
    with torch.no_grad():
        made.model.weight.zero_()
    assert model.weight.abs().sum() > 0


def test_a_quarter_of_the_batches_is_held_out():
    assert (len(problem().data), len(problem().held_out)) == (6, 2)


def test_twins_are_independent_and_start_where_they_should():
    made = problem()
    trained = {name: value + 1 for name, value in made.last.items()}
    object.__setattr__(made, "last", trained)
    assert torch.equal(made.twin().weight + 1, made.twin(last=True).weight)
    assert made.twin() is not made.twin()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("net", nn.MSELoss(), [(X, Y)]), "`model` must be a torch.nn.Module, got str"),
        ((nn.Linear(4, 3), 3, [(X, Y)]), "`loss` must be callable"),
        ((nn.Linear(4, 3), nn.MSELoss(), []), "`data` yields no batch"),
        ((nn.Linear(4, 3), nn.MSELoss(), [(X,)]), "must be \\(inputs…, target\\), got 1"),
        ((nn.Linear(4, 3), nn.MSELoss(), 5), "`data` must be an iterable"),
        ((nn.Linear(4, 3), nn.MSELoss(), [(X, Y)], "adam"), "`optimizer` must be a torch.optim.Optimizer"),
    ],
)
def test_what_cannot_be_used_is_said(arguments, message):
    with pytest.raises(unstuck.BadArgument, match=message):
        unstuck.Problem(*arguments)
