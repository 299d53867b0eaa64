from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr
from tests.curvature.test_search import autoencoder
from torch import nn

from unstuck.census import distinct
from unstuck.curvature.found import CRITICAL, Found
from unstuck.errors import NotMeasurable
from unstuck.lecture import minima_are_rare as rare
from unstuck.lecture.parts import Parts, english
from unstuck.problem import Problem


@pytest.fixture(scope="module")
def found() -> tuple[Found, ...]:
    return rare.searched(rare.digits(), rare.SEARCHES, rare.BUDGET_S)


@pytest.fixture(scope="module")
def parts(found: tuple[Found, ...]) -> Parts:
    return rare.told(english, found)


def silent(what: str, share: float) -> None:
    """No progress bar."""


def test_every_claim_holds(parts: Parts) -> None:
    assert len(parts.claims) == 3 and all(claim.held for claim in parts.claims)


def test_most_searches_arrive_and_every_one_is_drawn(found: tuple[Found, ...], parts: Parts) -> None:
    assert sum(point.outcome == CRITICAL for point in found) >= 25
    drawn = sorted((x, y) for curve in parts.charts[0].curves for x, y in zip(curve.x, curve.y, strict=True))
    assert drawn == sorted((rare.ratio(point), point.loss) for point in found)


def test_a_point_found_is_critical_by_plain_differentiation(found: tuple[Found, ...]) -> None:
    """Gradient and eigenvalues of the loss written anew, at the point of lowest loss and at a saddle."""
    x, y = (part.double() for part in rare.digits().data[0])
    apart = distinct(found)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        first, second = flat.split([rare.INPUTS * rare.HIDDEN, rare.HIDDEN * rare.CLASSES])
        given = torch.tanh(x @ first.view(rare.INPUTS, rare.HIDDEN)) @ second.view(rare.HIDDEN, rare.CLASSES)
        return (given - y).square().sum(1).mean() + rare.DECAY / 2 * flat.square().sum()

    for point in (apart[0], apart[-1]):
        at = point.parameters.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(at), at)
        values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, at.detach()))
        assert float(slope.norm()) < 1e-6 and len(at) == 100
        assert point.index == int((values < -point.zero).sum())
        assert rare.ratio(point) == pytest.approx(float((values > point.zero).double().mean()))


def test_the_correlation_is_of_ratio_and_loss(found: tuple[Found, ...], parts: Parts) -> None:
    apart = distinct(found)
    value = spearmanr([rare.ratio(point) for point in apart], [point.loss for point in apart]).statistic
    assert parts.claims[0].left.value == pytest.approx(value) and value < -0.5


def test_its_error_is_that_of_many_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(400, 2, 30, generator=generator)
    draws[:, 1] += draws[:, 0]
    found = torch.tensor([spearmanr(*draw.tolist()).statistic for draw in draws])
    assert rare.doubt(float(found.mean()), 30) == pytest.approx(float(found.std()), rel=0.15)


def test_on_a_training_the_points_are_its_own() -> None:
    torch.manual_seed(0)
    parts = rare.on(autoencoder(3), english, 20.0, silent)
    figures = {figure.name: figure.value for figure in parts.figures}
    assert figures["distinct critical points"] >= 5 and parts.claims[0].held and not parts.notes


def test_with_too_few_points_nothing_is_claimed() -> None:
    model = nn.Linear(1, 1, bias=False)
    x = torch.ones(4, 1)
    parts = rare.on(Problem(model, nn.MSELoss(), [(x, x)]), english, 5.0, silent)
    assert not parts.claims and "Distinct critical points found: 1 (" in parts.notes[0]


def test_a_network_too_large_for_the_time_is_told_so_at_once() -> None:
    model = nn.Sequential(nn.Linear(64, 200), nn.Tanh(), nn.Linear(200, 1))
    x = torch.randn(512, 64)
    with pytest.raises(NotMeasurable, match=r"one step of a search takes some \d+ s"):
        rare.on(Problem(model, nn.MSELoss(), [(x, x[:, :1])]), english, 0.01, silent)
