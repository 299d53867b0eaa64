from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unstuck.lecture import mse_against_cross_entropy as experiment
from unstuck.lecture.parts import Parts, chinese, english
from unstuck.lecture.plane import gradient


@pytest.fixture(scope="module")
def parts() -> Parts:
    return experiment.shown(english)


def test_every_claim_holds(parts: Parts) -> None:
    assert len(parts.claims) == 8 and all(claim.held for claim in parts.claims)


def test_the_chinese_page_makes_the_same_claims(parts: Parts) -> None:
    other = experiment.shown(chinese)
    assert [claim.left.value for claim in other.claims] == [claim.left.value for claim in parts.claims]
    assert not {claim.says for claim in other.claims} & {claim.says for claim in parts.claims}


def test_the_losses_are_those_of_torch() -> None:
    for y1, y2 in ((-10.0, 10.0), (0.5, -0.3), (4.0, 1.0)):
        outputs = torch.tensor([[y1, y2, -1000.0]], dtype=torch.float64)
        target = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
        place = torch.tensor(y1, dtype=torch.float64), torch.tensor(y2, dtype=torch.float64)
        entropy = nn.functional.cross_entropy(outputs, torch.tensor([0]))
        squared = nn.functional.mse_loss(outputs.softmax(1), target, reduction="sum")
        assert experiment.cross_entropy(*place).item() == pytest.approx(entropy.item())
        assert experiment.squared_error(*place).item() == pytest.approx(squared.item())


@pytest.mark.parametrize("place", [(-10.0, 10.0), (-2.0, 1.0), (0.0, 0.0), (3.0, -1.0)])
def test_the_slopes_are_their_formulas(place: tuple[float, float]) -> None:
    """Written out with exp once more, and by central differences where these can see them."""
    right = 1 / (1 + math.exp(place[1] - place[0]))
    expected = {experiment.cross_entropy: math.sqrt(2) * (1 - right),
                experiment.squared_error: 4 * math.sqrt(2) * right * (1 - right) ** 2}  # fmt: skip
    assert experiment.slopes(place) == pytest.approx(tuple(expected.values()))
    for loss, norm in expected.items():
        assert float(gradient(loss, place).norm()) == pytest.approx(norm, rel=1e-6)
        if norm > 1e-3:
            h, (x, y) = 1e-5, torch.tensor(place, dtype=torch.float64)
            slope = (loss(x + h, y) - loss(x - h, y)) / (2 * h), (loss(x, y + h) - loss(x, y - h)) / (2 * h)
            assert math.hypot(*map(float, slope)) == pytest.approx(norm, rel=1e-5)


def test_at_the_corner_the_gradients_are_a_hundred_million_apart(parts: Parts) -> None:
    squared, thousandth = parts.claims[0].left.value, parts.claims[0].right.value
    assert 1000 * thousandth / squared == pytest.approx(math.exp(20) / 4, rel=1e-6)  # 1 / (4 p₁ (1 − p₁))


def test_the_ways_are_those_of_torchs_optimizers(parts: Parts) -> None:
    place = torch.tensor(experiment.CORNER, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([place], lr=experiment.RATE)
    for _ in range(experiment.STEPS):
        adam.zero_grad()
        experiment.squared_error(place[0], place[1]).backward()
        adam.step()
    end = parts.charts[0].curves[0]
    assert (end.x[-1], end.y[-1]) == pytest.approx(tuple(place.tolist()))


def test_the_note_says_where_squared_error_overtakes(parts: Parts) -> None:
    courses = {curve.name: curve.y for curve in parts.charts[2].curves}
    ahead = [a > b for a, b in zip(courses["squared error, Adam"], courses["cross-entropy, Adam"], strict=True)]
    assert f"from step {ahead.index(True)} on" in parts.notes[0] and all(ahead[ahead.index(True):])
