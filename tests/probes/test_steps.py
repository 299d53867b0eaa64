"""Steps of the rules against closed forms for a gradient that stays, and against torch's own trainings."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unstuck.errors import NotMeasurable, UnstuckError
from unstuck.probes.gradients import gradient
from unstuck.probes.steps import RULES, measure
from unstuck.problem import Problem

F64 = torch.float64


class Two(nn.Module):
    """Two equal layers, of which one is heard louder by a known factor: so is its gradient."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.quiet, self.loud = nn.Linear(5, 3), nn.Linear(5, 3)
        self.loud.load_state_dict(self.quiet.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return self.quiet(x) + self.factor * self.loud(x)


def data(count: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 5, dtype=F64, generator=generator), torch.zeros(8, 3, dtype=F64)) for _ in range(count)]


def two(factor: float = 100.0, batches: list[tuple[Tensor, Tensor]] | None = None, loss=None) -> Problem:
    torch.manual_seed(0)
    return Problem(Two(factor).double(), loss or nn.MSELoss(), batches or data(1) * 4)


def test_a_gradient_that_stays_gives_the_closed_forms() -> None:
    found = measure(two(), updates=40)
    closed = {
        "sgd": lambda t: 1.0,
        "momentum": lambda t: (1 - 0.9**t) / (1 - 0.9),
        "adagrad": lambda t: 1 / math.sqrt(t),
        "rmsprop": lambda t: math.sqrt((1 - 0.99) / (1 - 0.99**t)),
        "adam": lambda t: 1.0,
    }
    assert found.updates == 40 and [rule.name for rule in found.rules] == list(closed)
    for rule in found.rules:
        assert rule.lengths == pytest.approx([closed[rule.name](t) for t in range(1, 41)], rel=1e-5)


@pytest.mark.parametrize("factor", [3.0, 1e4])
def test_layers_are_apart_by_their_gradients_factor_and_divided_by_their_size_they_are_not(factor: float) -> None:
    found = measure(two(factor))
    for name, spread in (("sgd", factor), ("momentum", factor), ("adagrad", 1), ("rmsprop", 1), ("adam", 1)):
        assert found.of(name).spread == pytest.approx(spread, rel=1e-4)
    steps = dict(found.of("sgd").layers)
    assert set(steps) == {"quiet.weight", "loud.weight"} and max(steps.values()) == pytest.approx(1.0)
    assert steps["loud.weight"] / steps["quiet.weight"] == pytest.approx(factor)


def test_steps_are_those_of_torchs_own_trainings_where_the_gradient_does_not_depend_on_the_weights() -> None:
    case = two(7.0, data(8), loss=lambda output, target: (output * (target + 0.3)).sum())
    found = measure(case, updates=6)
    for name, cls, options in RULES:
        model = case.twin()
        for bias in (model.quiet.bias, model.loud.bias):
            bias.requires_grad_(False)
        optimizer = cls([p for p in model.parameters() if p.requires_grad], lr=1.0, **options)
        lengths, weights = [], {n: p.detach().clone() for n, p in model.named_parameters() if p.dim() == 2}
        for k in range(6):
            before = {n: p.detach().clone() for n, p in model.named_parameters() if p.dim() == 2}
            optimizer.zero_grad()
            case.value(model, case.data[k]).backward()
            optimizer.step()
            moved = {n: float((p.detach() - before[n]).norm()) for n, p in model.named_parameters() if n in before}
            lengths.append(math.hypot(*moved.values()))
        assert found.of(name).lengths == pytest.approx([length / lengths[0] for length in lengths], rel=1e-9)
        shares = [moved[n] / float(weights[n].norm()) for n in moved]
        assert found.of(name).spread == pytest.approx(max(shares) / min(shares), rel=1e-9)


def test_the_batches_come_in_turn_and_last_is_where_the_training_was_left() -> None:
    case = two(5.0, data(8))
    case = replace(case, last={name: 3 * tensor for name, tensor in case.last.items()})
    for last in (False, True):
        model = case.twin(last=last)
        norms = []
        for k in range(8):
            _, found = gradient(case, model, case.data[k % len(case.data)])
            norms.append(math.hypot(*(float(found[f"{layer}.weight"].norm()) for layer in ("quiet", "loud"))))
        lengths = measure(case, updates=8, last=last).of("sgd").lengths
        assert lengths == pytest.approx([norm / norms[0] for norm in norms], rel=1e-9)
        assert lengths[0] == lengths[len(case.data)] == 1.0


def test_a_layer_without_gradient_is_no_layer_that_moves() -> None:
    found = measure(two(0.0))
    assert dict(found.of("adam").layers)["loud.weight"] == 0.0
    assert all(math.isnan(rule.spread) and math.isfinite(rule.lengths[-1]) for rule in found.rules)


def test_nothing_of_the_problem_or_the_random_numbers_is_changed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)).double()
    case = Problem(model, nn.MSELoss(), data())
    before, state = torch.get_rng_state(), {n: t.clone() for n, t in case.model.state_dict().items()}
    found = measure(case, updates=5)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(state[name], value) for name, value in case.model.state_dict().items())
    assert all(p.grad is None for p in case.model.parameters())
    assert measure(case, updates=5) == found


class Vector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.scale * x)[:, :3]


def test_what_cannot_be_measured_says_why() -> None:
    with pytest.raises(NotMeasurable, match="no layer has a weight matrix that is trained"):
        measure(Problem(Vector(), nn.MSELoss(), data()))
    frozen = two()
    for parameter in frozen.model.parameters():
        parameter.requires_grad_(parameter.dim() < 2)
    with pytest.raises(NotMeasurable, match="no layer has a weight matrix that is trained"):
        measure(frozen)
    with pytest.raises(NotMeasurable, match="the gradient is not finite"):
        measure(two(loss=lambda output, target: (output * math.inf).sum()))
    with pytest.raises(NotMeasurable, match="the gradient is 0 in every layer"):
        measure(two(loss=lambda output, target: (output * 0).sum()))
    with pytest.raises(UnstuckError, match="no gradient"):
        measure(two(loss=lambda output, target: output.detach().sum()))
