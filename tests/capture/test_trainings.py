"""Several trainings in one script: the record of the last is its own; players that take turns are one training."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from unstuck.capture.assemble import Captured, assemble
from unstuck.capture.watch import Watch
from unstuck.errors import StopTraining
from unstuck.problem import Problem

X = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def net(classes: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr)


def fit(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, y: Tensor = Y) -> list[float]:
    losses = []
    for _ in range(steps):
        at = torch.randint(0, 256, (16,))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X[at]), y[at])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def watched(loop: Callable[[], object], **options: int) -> tuple[Watch, Captured]:
    torch.manual_seed(0)
    with Watch(share=1.0, **options) as watch:  # type: ignore[arg-type]
        try:
            loop()
        except StopTraining:
            assert watch.why_stopped
    return watch, assemble(watch)


def problem_of(captured: Captured) -> Problem:
    assert captured.problem is not None, captured.skipped
    return captured.problem


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("first", [12, 400], ids=["short", "long"])
@pytest.mark.parametrize("early", [False, True], ids=["made as it begins", "both made at first"])
def test_the_last_of_several_is_examined_alone(first: int, early: bool) -> None:
    kept: dict[str, object] = {}

    def loop() -> None:
        one, two = net(), net(3)
        optimizers = [sgd(one), sgd(two, 0.05)] if early else [sgd(one)]
        fit(one, optimizers[0], first)
        kept["start"] = copy.deepcopy(two.state_dict())
        kept["losses"] = fit(two, optimizers[1] if early else sgd(two, 0.05), 30)
        kept["end"] = two.state_dict()

    watch, captured = watched(loop)
    problem = problem_of(captured)
    assert watch.trainings.number == 2 and watch.trainings.before == first
    assert list(captured.loop.losses) == pytest.approx(kept["losses"])
    assert captured.loop.steps == 30 and captured.loop.lrs == (0.05,) * 30
    assert same(problem.last, kept["end"])  # type: ignore[arg-type]
    parameters = dict(problem.twin().named_parameters())
    start = {name: t for name, t in kept["start"].items() if name in parameters}  # type: ignore[attr-defined]
    assert same({name: p.detach() for name, p in parameters.items()}, start)
    assert problem.optimizer is not None and problem.optimizer.lr == 0.05
    assert any("training 2 of the script" in part.why for part in captured.skipped)


def test_each_begins_with_its_own_state_and_its_first_step_is_recorded() -> None:
    starts: list[dict[str, Tensor]] = []

    def loop() -> None:
        for _ in range(3):
            model = net()
            starts.append(copy.deepcopy(model.state_dict()))
            fit(model, sgd(model), 25)

    watch, captured = watched(loop)
    assert watch.trainings.number == 3 and same(problem_of(captured).twin().state_dict(), starts[-1])
    form = watch.seen.forms[0]
    assert form.step == 0 and form.loss == pytest.approx(watch.seen.losses[0])


def in_turns() -> tuple[int, int]:
    """A generator and a discriminator."""
    one, two = nn.Sequential(nn.Linear(6, 6)), net()
    first, second = sgd(one), sgd(two)
    for _ in range(15):
        second.zero_grad()
        F.cross_entropy(two(one(X).detach()), Y).backward()
        second.step()
        first.zero_grad()
        (-F.cross_entropy(two(one(X)), Y)).backward()
        first.step()
    return 30, 30


def three_in_turns() -> tuple[int, int]:
    models = [net() for _ in range(3)]
    optimizers = [sgd(model) for model in models]
    for _ in range(10):
        for model, optimizer in zip(models, optimizers, strict=True):
            fit(model, optimizer, 1)
    return 30, 30


def two_parts() -> tuple[int, int]:
    """One loss, an optimizer for each part of the model."""
    model = net()
    parts = sgd(model[0]), sgd(model[3])
    for _ in range(10):
        for part in parts:
            part.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        for part in parts:
            part.step()
    return 20, 10


def two_parts_once() -> tuple[int, int]:
    """The same, ended before it shows that they take turns."""
    model = net()
    F.cross_entropy(model(X), Y).backward()
    sgd(model[0]).step()
    sgd(model[3]).step()
    return 2, 1


def same_parameters() -> tuple[int, int]:
    """First with one optimizer, then with another."""
    model = net()
    fit(model, sgd(model), 20)
    fit(model, torch.optim.Adam(model.parameters()), 20)
    return 40, 40


def long_phases() -> tuple[int, int]:
    one, two = net(), net()
    first, second = sgd(one), sgd(two)
    for _ in range(2):
        fit(one, first, 40)
        fit(two, second, 40)
    return 160, 160


ONE = (in_turns, three_in_turns, two_parts, two_parts_once, same_parameters, long_phases)


@pytest.mark.parametrize("loop", ONE, ids=lambda loop: loop.__name__)
def test_what_takes_turns_is_one_training(loop: Callable[[], tuple[int, int]]) -> None:
    made: list[tuple[int, int]] = []
    watch, captured = watched(lambda: made.append(loop()))
    assert watch.trainings.number == 1 and watch.trainings.before == 0
    assert [(captured.loop.steps, captured.loop.backwards)] == made
    assert sum(count * backwards for backwards, count in watch.seen.per_step.items()) == made[0][1]
    assert not any(part.probe == "the trainings before" for part in captured.skipped)


def test_a_head_on_a_trained_body_begins_with_the_body_as_it_was_left() -> None:
    """The body's weights and running statistics are those after the first training, not those it began with."""
    kept: dict[str, dict[str, Tensor]] = {}

    def loop() -> None:
        model = net()
        fit(model, sgd(model), 60)
        model[3] = nn.Linear(8, 2)
        kept["start"] = {name: t.clone() for name, t in model.named_parameters()}
        kept["mean"] = {"mean": model[1].running_mean.clone()}  # type: ignore[union-attr, operator]
        fit(model.eval(), sgd(model[3]), 30)

    watch, captured = watched(loop)
    twin = problem_of(captured).twin()
    assert watch.trainings.number == 2 and captured.loop.steps == 30
    assert same({name: p.detach() for name, p in twin.named_parameters()}, kept["start"])
    assert torch.equal(twin[1].running_mean, kept["mean"]["mean"])  # type: ignore[index]


def test_the_data_of_one_training_are_not_validated_on_in_the_next() -> None:
    first, second = (DataLoader(TensorDataset(X + shift, Y), 32) for shift in (0.0, 100.0))

    def loop() -> None:
        for loader in (first, second):
            model = net()
            optimizer = sgd(model)
            for _ in range(4):
                for x, y in loader:
                    optimizer.zero_grad()
                    F.cross_entropy(model(x), y).backward()
                    optimizer.step()

    watch, captured = watched(loop)
    problem = problem_of(captured)
    assert watch.trainings.number == 2 and problem.validation == ()
    assert all(float(x.mean()) > 50 for x, _ in (*problem.data, *problem.held_out))


def test_one_of_them_can_be_asked_for() -> None:
    kept: list[list[float]] = []

    def loop() -> None:
        for _ in range(3):
            model = net()
            kept.append(fit(model, sgd(model), 20))

    watch, captured = watched(loop, only=2)
    assert watch.trainings.number == 2 and len(kept) == 2
    assert list(captured.loop.losses)[:20] == pytest.approx(kept[1])
    assert "after training 2" in watch.why_stopped
    watch, captured = watched(loop, only=7)
    assert [part.why for part in captured.skipped if part.probe == "training 7"] == [
        "the script makes 3; the last one is examined"
    ]


def test_the_limit_counts_the_steps_of_all() -> None:
    def loop() -> None:
        for _ in range(3):
            model = net()
            fit(model, sgd(model), 20)

    watch, captured = watched(loop, steps=45)
    assert watch.trainings.before + watch.seen.made == 45 and captured.loop.steps == 5


def test_a_script_of_many_trainings_lets_the_first_ones_go() -> None:
    def loop() -> None:
        for _ in range(12):
            model = net()
            fit(model, sgd(model), 3)

    watch, captured = watched(loop)
    assert watch.trainings.number == 12 and len(watch.trainings._earlier) == 8
    assert captured.loop.steps == 3
