from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch
from tests.small import clouds, mlp, trained, written
from torch import nn

from unstuck.lecture import stuck_is_not_small_gradient as stuck
from unstuck.lecture.parts import Parts, english
from unstuck.lecture.plane import descend, gradient
from unstuck.loop import Loop
from unstuck.optim.sgd import SGD
from unstuck.problem import Problem, state_of


@pytest.fixture(scope="module")
def parts() -> Parts:
    return stuck.shown(english)


def silent(what: str, share: float) -> None:
    """No progress bar."""


def test_every_claim_holds(parts: Parts) -> None:
    assert len(parts.claims) == 9 and all(claim.held for claim in parts.claims)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_network_bounces_from_other_starts_too(seed: int) -> None:
    problem = stuck.diabetes(seed)
    claims = stuck._in_the_network(english, problem, stuck.trained(problem))
    assert all(claim.held for claim in claims)


def test_a_step_from_the_width_ends_on_the_other_wall() -> None:
    y = stuck.width()
    step = -stuck.RATE * float(gradient(stuck.valley, (0.0, y))[1])
    assert y + step == pytest.approx(-y)


def test_below_the_edge_nothing_bounces() -> None:
    rate = 0.9 * 2 * stuck.WALL**2  # lr · λmax = 1.8
    path = descend(stuck.valley, (0.0, 1.1), SGD, 200, lr=rate)
    assert abs(float(path.places[-1, 1])) < 1e-8


def test_its_steepest_curvature_is_that_of_the_dense_hessian() -> None:
    problem = stuck.diabetes()
    model, (x, y) = problem.twin(), problem.data[0]
    names, values = zip(*model.named_parameters(), strict=True)

    def loss(*given: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(torch.func.functional_call(model, dict(zip(names, given, strict=True)), (x,)), y)

    blocks = torch.autograd.functional.hessian(loss, tuple(v.detach() for v in values))
    sizes = [v.numel() for v in values]
    dense = torch.cat([torch.cat([blocks[i][j].reshape(sizes[i], sizes[j]) for j in range(len(sizes))], 1)
                       for i in range(len(sizes))])  # fmt: skip
    assert stuck.steepest(problem, state_of(model)) == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-3)


def quadratic(lr: float, momentum: float = 0.0) -> Problem:
    """ŷ = w x with x = 1, 2: the curvature of the squared error is 2 · mean(x²) = 5."""
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    x = torch.tensor([[1.0], [2.0]])
    return trained(Problem(model, nn.MSELoss(), [(x, 3 * x)], optimizer=optimizer), 40)


@pytest.mark.parametrize(("lr", "momentum"), [(0.1, 0.0), (0.1, 0.5)])
def test_on_a_training_the_edge_is_that_of_its_curvature(lr: float, momentum: float) -> None:
    parts = stuck.on(quadratic(lr, momentum), english, 5.0, silent)
    figures = {figure.name: figure.value for figure in parts.figures}
    assert figures["λmax"] == pytest.approx(5, rel=0.05)
    assert figures["lr·λmax / 2(1 + β); it bounces above 1"] == pytest.approx(lr * 5 / 2 / (1 + momentum), rel=0.05)
    assert "The step is within the edge." in parts.notes


def test_a_training_that_bounces_is_told_so() -> None:
    parts = stuck.on(quadratic(0.401), english, 5.0, silent)  # 0.2 % beyond 2 / λ
    assert "The step is beyond the edge: it bounces." in parts.notes


def test_a_training_that_stands_is_asked_for_its_gradient() -> None:
    x, y = clouds(200)
    case = trained(written(mlp(), x, y), 40)
    norms = tuple((step, 1.0) for step in range(6))
    still = Loop(losses=(0.5,) * 40, gradient_norms=norms, steps=40, training=case.loop.training)
    parts = stuck.on(replace(case, loop=still), english, 5.0, silent)
    assert [claim.held for claim in parts.claims] == [True] and len(parts.charts[0].curves) == 2
    assert "scales its steps itself" in parts.notes[-1]  # Adam
    falling = replace(case, loop=replace(still, losses=tuple(math.exp(-k / 10) for k in range(40))))
    assert not stuck.on(falling, english, 5.0, silent).claims


def test_a_loss_that_cannot_be_repeated_has_no_curvature_and_it_says_why() -> None:
    model, x = nn.Linear(1, 1), torch.ones(4, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    case = Problem(model, lambda out, target: out.mean() * unseeded(), [(x, x)], optimizer=sgd)
    parts = stuck.on(case, english, 5.0, silent)
    assert "needs eight" in parts.notes[0]  # a problem that was written down has no course either
    assert "λmax was not measured" in parts.notes[1] and not parts.figures and not parts.claims


def unseeded() -> float:
    """Random, whatever the seed."""
    return random.SystemRandom().random()
