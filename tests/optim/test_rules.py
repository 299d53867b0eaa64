"""Contract 4: every update rule over stacked parameters equals its torch.optim counterpart, in float64, 200 steps."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import Tensor, nn

from unstuck.errors import BadArgument
from unstuck.optim.adam import ADAM
from unstuck.optim.rule import NONE, along, numbers
from unstuck.optim.rules import BESIDE, RULES, counterpart
from unstuck.optim.sgd import SGD

F64 = torch.float64
STEPS = 200

# Rule, flags, numbers of two lanes.
TABLE = [
    ("sgd", (), {"lr": (0.1, 0.02)}),
    ("sgd", ("maximize",), {"lr": (0.01, 0.001), "weight_decay": (0.1, 0.0)}),
    ("momentum", (), {"lr": (0.05, 0.01), "momentum": (0.9, 0.5)}),
    ("momentum", (), {"lr": 0.05, "momentum": (0.9, 0.0), "dampening": 0.3, "weight_decay": (0.0, 0.01)}),
    ("momentum", ("maximize",), {"lr": 0.001}),
    ("nesterov", (), {"lr": (0.05, 0.01), "momentum": (0.9, 0.7), "weight_decay": 0.01}),
    ("nesterov", ("maximize",), {"lr": 0.001}),
    ("adagrad", (), {"lr": (0.1, 0.02)}),
    ("adagrad", (), {"lr": 0.1, "lr_decay": (0.1, 0.01), "weight_decay": 0.01, "initial_accumulator_value": 0.5}),
    ("adagrad", ("maximize",), {"lr": 0.01, "eps": (1e-3, 1e-8)}),
    ("rmsprop", (), {"lr": (0.01, 0.002), "alpha": (0.9, 0.99), "eps": (1e-6, 1e-8)}),
    ("rmsprop", ("centered",), {"lr": 0.002, "momentum": (0.9, 0.0), "weight_decay": 0.01, "eps": 1e-4}),
    ("rmsprop", ("maximize",), {"lr": 0.001, "momentum": 0.5}),
    ("adam", (), {"lr": (0.01, 0.001), "beta1": (0.9, 0.5), "beta2": (0.999, 0.9), "eps": (1e-8, 1e-3)}),
    ("adam", ("amsgrad",), {"lr": 0.01, "weight_decay": (0.1, 0.0)}),
    ("adam", ("maximize", "amsgrad"), {"lr": 0.001}),
    ("adamw", (), {"lr": (0.01, 0.001), "weight_decay": (0.1, 0.01)}),
    ("adamw", ("amsgrad", "maximize"), {"lr": 0.001, "beta1": 0.8, "beta2": (0.95, 0.99), "eps": 1e-6}),
]
NAMED = {rule.name: rule for rule in RULES}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(4), nn.Linear(4, 3)
        self.attend = nn.MultiheadAttention(4, 2, bias=False, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.out((x + self.attend(y, y, y, need_weights=False)[0]).mean(1))


# No bias whose gradient is zero but for rounding (before BatchNorm, of attention's keys): adaptive rules blow that up.
NETWORKS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), (8, 6)),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
        ),
        (8, 1, 4, 4),
    ),
    "lstm": (Recurrent, (8, 3, 4)),
    "attention": (Attentive, (8, 3, 4)),
}


def gradients(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters())))


def lanes(network: str, count: int) -> tuple[list[nn.Module], Tensor, Tensor]:
    """`count` networks of different start, and four batches."""
    make, shape = NETWORKS[network]
    torch.manual_seed(0)
    models = [make().double() for _ in range(count)]
    return models, torch.randn(4, *shape, dtype=F64), torch.randint(0, 3, (4, shape[0]))


def one(value: float | tuple[float, ...], lane: int) -> float:
    return value[lane] if isinstance(value, tuple) else value


def rolling(rule) -> dict[str, float]:
    """What torch.optim.SGD has to be told to have momentum."""
    return {"momentum": 0.9} if rule.name in {"momentum", "nesterov"} else {}


def live(rule, flags, given, lane: int, model: nn.Module) -> torch.optim.Optimizer:
    options = {name: one(value, lane) for name, value in given.items()}
    betas = {"betas": (options.pop("beta1", 0.9), options.pop("beta2", 0.999))} if "beta1" in rule.numbers else {}
    return rule.counterpart(
        model.parameters(), **{**rolling(rule), **options}, **betas, **dict.fromkeys(flags, True), **rule.options
    )


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("name", "flags", "given"), TABLE)
def test_a_rule_is_its_torch_counterpart(network: str, name: str, flags, given) -> None:
    rule, flags = NAMED[name], frozenset(flags)
    models, x, y = lanes(network, 2)
    theirs, x_y = lanes(network, 2)[0], list(zip(x, y, strict=True))
    optimizers = [live(rule, flags, given, lane, model) for lane, model in enumerate(theirs)]
    hyper = numbers(rule, 2, **given)
    stacked = [torch.stack([p.detach() for p in same]) for same in zip(*(m.parameters() for m in models), strict=True)]
    states = [rule.init(parameter, hyper, flags) for parameter in stacked]
    for step in range(1, STEPS + 1):
        x_now, y_now = x_y[step % 4]
        for model, optimizer in zip(theirs, optimizers, strict=True):
            for parameter, gradient in zip(model.parameters(), gradients(model, x_now, y_now), strict=True):
                parameter.grad = gradient
            optimizer.step()
        each = zip(*(gradients(model, x_now, y_now) for model in models), strict=True)
        moved = [
            rule.update(parameter, torch.stack(same), state, hyper, flags, step)
            for parameter, same, state in zip(stacked, each, states, strict=True)
        ]
        stacked, states = [parameter for parameter, _ in moved], [state for _, state in moved]
        with torch.no_grad():
            for lane, model in enumerate(models):
                for parameter, values in zip(model.parameters(), stacked, strict=True):
                    parameter.copy_(values[lane])
    for lane, model in enumerate(theirs):
        for parameter, values in zip(model.parameters(), stacked, strict=True):
            assert torch.allclose(parameter, values[lane], rtol=1e-7, atol=1e-9), f"lane {lane}"
    assert all(bool(torch.isfinite(parameter).all()) for parameter in stacked)


@pytest.mark.parametrize(("name", "flags", "given"), TABLE)
def test_a_number_that_all_lanes_share_may_be_a_float(name: str, flags, given) -> None:
    rule, flags = NAMED[name], frozenset(flags)
    hyper = numbers(rule, 2, **{key: one(value, 0) for key, value in given.items()})
    torch.manual_seed(0)
    begin, gradients_ = torch.randn(2, 5, dtype=F64), torch.randn(6, 2, 5, dtype=F64)
    ends = []
    for each in (hyper, {key: float(value[0]) for key, value in hyper.items()}):
        parameter, state = begin, rule.init(begin, each, flags)
        for step, gradient in enumerate(gradients_, 1):
            parameter, state = rule.update(parameter, gradient, state, each, flags, step)
        ends.append(parameter)
    assert torch.allclose(*ends, rtol=1e-12, atol=1e-14)


def test_the_table_has_every_option_that_torch_documents() -> None:
    for rule in RULES:
        rows = [(flags, given) for name, flags, given in TABLE if name == rule.name]
        assert {flag for flags, _ in rows for flag in flags} == rule.flags
        tried = {name for _, given in rows for name in given}
        assert tried == set(rule.numbers), rule.name
        documented = set(inspect.signature(rule.counterpart).parameters) - BESIDE
        known = {*rule.numbers, *rule.flags}
        left_out = {"sgd": {"momentum", "dampening"}, "nesterov": {"dampening"}}.get(rule.name, set())
        assert documented - known == left_out, rule.name


@pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])
def test_a_lane_that_turns_nan_leaves_the_others_clean(rule) -> None:
    hyper = numbers(rule, 3)
    parameter, gradient = torch.ones(3, 2, 2, dtype=F64), torch.ones(3, 2, 2, dtype=F64)
    gradient[1] = math.nan
    state = rule.init(parameter, hyper, NONE)
    for step in (1, 2, 3):
        parameter, state = rule.update(parameter, gradient, state, hyper, NONE, step)
    assert bool(parameter[1].isnan().all()) and not bool(parameter[[0, 2]].isnan().any())
    assert torch.equal(parameter[0], parameter[2]) and bool((parameter[0] < 1).all())


def test_nothing_is_changed_in_place() -> None:
    for rule in RULES:
        hyper = numbers(rule, 2, lr=0.1)
        parameter, gradient = torch.ones(2, 3), torch.full((2, 3), 0.5)
        state = rule.init(parameter, hyper, rule.flags)
        before = {name: value.clone() for name, value in state.items()}
        rule.update(parameter, gradient, state, hyper, rule.flags, 1)
        assert torch.equal(parameter, torch.ones(2, 3)) and torch.equal(gradient, torch.full((2, 3), 0.5))
        assert all(torch.equal(before[name], value) for name, value in state.items())


def test_what_is_computed_of_hyperparameters_is_not_rounded_first() -> None:
    """In float32 too the first step of Adam is lr · sign(g), and the mean square is g² after its correction."""
    hyper = numbers(ADAM, 1, lr=1e-3)
    parameter, gradient = torch.zeros(1, 4), torch.tensor([[1.0, -2.0, 3.0, -4.0]])
    moved, _ = ADAM.update(parameter, gradient, ADAM.init(parameter, hyper, NONE), hyper, NONE, 1)
    assert torch.allclose(moved, -1e-3 * gradient.sign(), rtol=1e-6, atol=0)


def test_numbers_have_an_entry_for_each_lane() -> None:
    hyper = numbers(SGD, 3, lr=[0.1, 0.2, 0.3])
    assert hyper["lr"].tolist() == [0.1, 0.2, 0.3] and hyper["weight_decay"].tolist() == [0.0] * 3
    assert along(hyper["lr"], torch.zeros(3, 2, 5)).shape == (3, 1, 1)
    with pytest.raises(BadArgument, match="numbers: sgd has no `momentum`; it has lr, weight_decay"):
        numbers(SGD, 3, momentum=0.9)
    with pytest.raises(BadArgument, match="`lr` must have a value for each of the 3 lanes, got 2"):
        numbers(SGD, 3, lr=[0.1, 0.2])


@pytest.mark.parametrize(
    ("cls", "options", "name", "flags", "some"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0, "nesterov": False}, "sgd", set(), {"lr": 0.1}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.8, "dampening": 0.1}, "momentum", set(), {"momentum": 0.8}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.8, "nesterov": True}, "nesterov", set(), {"momentum": 0.8}),
        (torch.optim.Adam, {"lr": 0.1, "betas": (0.5, 0.9), "amsgrad": True}, "adam", {"amsgrad"}, {"beta2": 0.9}),
        (torch.optim.Adam, {"eps": 0.1, "decoupled_weight_decay": True}, "adamw", set(), {"eps": 0.1}),
        (torch.optim.AdamW, {"lr": torch.tensor(0.25), "maximize": True}, "adamw", {"maximize"}, {"lr": 0.25}),
        (torch.optim.RMSprop, {"centered": True, "alpha": 0.9}, "rmsprop", {"centered"}, {"alpha": 0.9}),
        (torch.optim.Adagrad, {"lr_decay": 0.1}, "adagrad", set(), {"lr_decay": 0.1, "eps": 1e-10}),
    ],
)  # fmt: skip
def test_a_torch_optimizer_has_its_rule(cls, options, name, flags, some) -> None:
    rule, found, hyper = counterpart(cls, options)
    assert (rule.name, found) == (name, flags) and set(hyper) == set(rule.numbers)
    assert {key: hyper[key] for key in some} == some


def test_a_live_group_names_its_rule() -> None:
    for rule in RULES:
        optimizer = rule.counterpart(nn.Linear(2, 1).parameters(), **rule.options, **rolling(rule))
        found, flags, hyper = counterpart(type(optimizer), optimizer.param_groups[0])
        assert (found, flags, hyper) == (rule, NONE, dict(rule.numbers))


def test_what_has_no_rule_has_none() -> None:
    assert counterpart(torch.optim.LBFGS, {"lr": 1.0}) is None
    assert counterpart(torch.optim.Adadelta, {}) is None

    class Mine(torch.optim.SGD):
        pass

    assert counterpart(Mine, {"lr": 1.0}) is None
    assert counterpart(torch.optim.SGD, {"lr": 1.0, "trust": 0.5}) is None
