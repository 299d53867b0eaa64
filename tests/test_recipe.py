"""An optimizer made again from its recipe makes the steps that the user's would have made."""

import copy

import pytest
import torch
from torch import nn

from unstuck.problem import load_state, state_of
from unstuck.recipe import OptimizerRecipe, load_optimizer, recipe_of

X, Y = torch.randn(8, 4), torch.randint(0, 3, (8,))
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


def test_load_optimizer_gives_back_the_recorded_moments():
    model = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(4):
        nn.functional.cross_entropy(model(X), Y).backward()
        optimizer.step()
    recipe = recipe_of(optimizer, {id(p): n for n, p in model.named_parameters()})
    twin = copy.deepcopy(model)
    fresh = recipe.build(twin)
    load_optimizer(fresh, twin, recipe)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(optimizer.state[ours]["exp_avg_sq"], fresh.state[theirs]["exp_avg_sq"])
        assert fresh.state[theirs]["step"] == 4
