"""A problem keeps nothing of the user's, says clearly what it cannot use, and makes optimizers again."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import unstuck
from unstuck.problem import OptimizerRecipe, load_state, recipe_of, sandbox, state_of

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


def test_the_sandbox_leaves_every_stream_as_it_was():
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    wanted = (torch.rand(1).item(), random.random(), np.random.rand())
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    with sandbox(3):
        torch.rand(7), random.random(), np.random.rand(9)
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == wanted


OPTIMIZERS = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    (torch.optim.Adam, {"lr": 0.01, "betas": (0.8, 0.9)}),
    (torch.optim.AdamW, {"lr": 0.01}),
    (torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.9}),
    (torch.optim.Adagrad, {"lr": 0.1}),
]


@pytest.mark.parametrize(("cls", "options"), OPTIMIZERS)
def test_an_optimizer_made_again_makes_the_same_steps(cls, options):
    model, twin = nn.Linear(4, 3), nn.Linear(4, 3)
    load_state(twin, state_of(model))
    first = cls([{"params": [model.weight]}, {"params": [model.bias], "lr": 0.02}], **options)
    second = recipe_of(first, {id(p): n for n, p in model.named_parameters()}).build(twin)
    for _ in range(3):
        for net, optimizer in ((model, first), (twin, second)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(X), Y).backward()
            optimizer.step()
    assert torch.equal(model.weight, twin.weight)
    assert torch.equal(model.bias, twin.bias)


class NeedsRate(torch.optim.SGD):
    """An optimizer whose rate has no default."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)


def test_an_optimizer_with_required_arguments_is_made_again():
    model = nn.Linear(4, 3)
    recipe = recipe_of(NeedsRate(model.parameters(), lr=0.3), {id(p): n for n, p in model.named_parameters()})
    assert recipe.build(model).param_groups[0]["lr"] == 0.3


def test_a_recipe_taken_under_a_scheduler_has_the_rate_it_began_with():
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    optimizer.step()
    scheduler.step()
    assert recipe_of(optimizer, {id(p): n for n, p in model.named_parameters()}).lr == 1.0


def test_options_and_rates_change_in_every_group():
    recipe = OptimizerRecipe(torch.optim.SGD, (({"lr": 1.0}, ("a",)), ({"lr": 0.5}, ("b",))))
    assert [group["lr"] for group, _ in recipe.scaled(0.1).groups] == pytest.approx([0.1, 0.05])
    assert [group["momentum"] for group, _ in recipe.with_options(momentum=0.9).groups] == [0.9, 0.9]
