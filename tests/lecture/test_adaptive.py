from __future__ import annotations

import math

import pytest
import torch
from tests.chapters.test_optimizers import small

from unstuck.chapters import optimizers
from unstuck.lecture import adaptive
from unstuck.lecture.parts import Parts, chinese, english
from unstuck.lecture.plane import descend, gradient
from unstuck.optim.adagrad import ADAGRAD
from unstuck.optim.rmsprop import RMSPROP
from unstuck.optim.sgd import SGD


@pytest.fixture(scope="module")
def parts() -> Parts:
    return adaptive.shown(english)


def silent(what: str, share: float) -> None:
    """No progress bar."""


def test_every_claim_holds(parts: Parts) -> None:
    assert len(parts.claims) == 15 and all(claim.held for claim in parts.claims)


def test_the_lectures_adagrad_divides_by_the_root_of_the_mean_square() -> None:
    path, _ = adaptive.mean_adagrad()
    place, total = torch.tensor(adaptive.ADAGRAD_FROM, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for step in range(50):
        slope = gradient(adaptive.valley, place)
        total += slope**2
        place = place - adaptive.ADAGRAD_RATE * slope / (total / (step + 1)).sqrt()
        assert torch.allclose(path.places[step + 1], place, rtol=1e-6)


def test_it_bursts_only_beyond_the_edge() -> None:
    """y ← (1 − α/σ) y: what is quiet grows where α/σ > 2, and only there."""
    path, decayed = adaptive.mean_adagrad()
    y = path.places[:, 1]
    for step in (20, 60, 100, adaptive.burst(path).begins):
        assert float(y[step + 1] / y[step]) == pytest.approx(1 - adaptive.own_rate(path, step), rel=1e-6)
    assert adaptive.own_rate(path, 20) < 2 and adaptive.burst(decayed).begins is None


def test_the_burst_comes_from_other_starts_too() -> None:
    for start in (-200.0, -230.0, -300.0):
        path = descend(adaptive.valley, (start, 0.8), ADAGRAD, 800, lambda t: math.sqrt(t + 1), lr=0.3)
        assert adaptive.burst(path).peak > 100 * adaptive.QUIET


def test_rmsprops_first_step_is_longer_than_its_rate() -> None:
    path = descend(adaptive.valley, (1.0, 1.0), RMSPROP, 1, lr=0.01, alpha=0.95)
    assert float((path.places[0] - path.places[1])[1]) == pytest.approx(0.01 / math.sqrt(0.05), rel=1e-4)


def test_plain_descent_beyond_its_largest_rate_flies_off() -> None:
    assert abs(float(descend(adaptive.valley, (0.0, 1.0), SGD, 100, lr=2.1).places[-1, 1])) > 1e3


def test_on_a_training_five_optimizers_are_raced_and_only_they() -> None:
    parts = adaptive.on(small(lr=0.05), english, 8.0, silent)
    assert {figure.name.split()[0] for figure in parts.figures} == set(optimizers.RULES)
    values = [figure.value for figure in parts.figures]
    assert values == sorted(values) and len(parts.charts[0].curves) == 5
    (claim,) = parts.claims
    assert claim.right.name.startswith("sgd") and claim.left.value == min(
        figure.value for figure in parts.figures if figure.name.split()[0] in {"adagrad", "rmsprop", "adam"}
    )


def test_where_time_is_short_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    case = small(lr=0.05)
    alone = optimizers.raced(case, 1.5, among=())
    monkeypatch.setattr(adaptive, "raced", lambda *_, **__: alone)
    assert "does not fit" in adaptive.on(case, english, 1.5, silent).notes[0]
    assert "不够" in adaptive.on(case, chinese, 1.5, silent).notes[0]
