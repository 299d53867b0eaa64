from __future__ import annotations

import pytest
import torch
from torch import nn

from unstuck.lecture import saddle
from unstuck.lecture.parts import english
from unstuck.lecture.plane import gradient, hessian
from unstuck.problem import Problem


@pytest.fixture(scope="module")
def parts() -> saddle.Parts:
    return saddle.shown(english)


def test_every_claim_holds(parts: saddle.Parts) -> None:
    assert len(parts.claims) == 9 and all(claim.held for claim in parts.claims)


def test_the_eigenvalues_at_the_origin_are_two_and_minus_two() -> None:
    values, vectors = torch.linalg.eigh(hessian(saddle.two_weights, saddle.ORIGIN))
    assert values.tolist() == pytest.approx([-2.0, 2.0])
    assert vectors[0, 0] == pytest.approx(vectors[1, 0])  # u = (1, 1) / √2


def test_the_network_has_the_loss_that_is_drawn() -> None:
    ones = torch.ones(1, 1)
    for w1, w2 in ((0.3, -0.7), (2.0, 0.4)):
        net = saddle.TwoWeights(w1, w2)
        loss = nn.functional.mse_loss(net(ones), ones)
        loss.backward()
        assert loss.item() == pytest.approx(saddle.two_weights(torch.tensor(w1), torch.tensor(w2)).item())
        slopes = [float(net.w1.grad), float(net.w2.grad)]  # type: ignore[arg-type]
        assert gradient(saddle.two_weights, (w1, w2)).tolist() == pytest.approx(slopes)


def test_the_certificate_says_saddle(parts: saddle.Parts) -> None:
    low, high = parts.figures
    assert "saddle" in low.name
    assert (low.value, high.value) == pytest.approx((-2, 2), rel=0.02)


def test_a_training_left_at_a_saddle_is_shown_the_way_out() -> None:
    ones = torch.ones(1, 1)
    problem = Problem(saddle.TwoWeights(), nn.MSELoss(), [(ones, ones)])
    parts = saddle.on(problem, english, 5.0, lambda what, share: None)
    assert "saddle" in parts.notes[0] and [claim.held for claim in parts.claims] == [True]


def test_a_training_left_at_a_minimum_makes_no_claim() -> None:
    ones = torch.ones(1, 1)
    problem = Problem(saddle.TwoWeights(1.0, 1.0), nn.MSELoss(), [(ones, ones)])
    parts = saddle.on(problem, english, 5.0, lambda what, share: None)
    assert not parts.claims and parts.notes and parts.charts
