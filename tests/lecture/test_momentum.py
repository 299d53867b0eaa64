from __future__ import annotations

import math

import pytest
import torch
from tests.chapters.test_optimizers import small

from unstuck.lecture import momentum
from unstuck.lecture.parts import Parts, chinese, english
from unstuck.lecture.plane import descend, gradient, hessian
from unstuck.optim.momentum import MOMENTUM


@pytest.fixture(scope="module")
def parts() -> Parts:
    return momentum.shown(english)


def silent(what: str, share: float) -> None:
    """No progress bar."""


def test_every_claim_holds(parts: Parts) -> None:
    assert len(parts.claims) == 9 and all(claim.held for claim in parts.claims)


def test_the_surface_has_a_hollow_a_hill_and_a_deeper_valley() -> None:
    """The critical points on y = 0 are the roots of 4x³ − 4x − 1/2; the Hessian there says what they are."""
    roots = sorted(2 / math.sqrt(3) * math.cos((math.acos(0.125 * 1.5 * math.sqrt(3)) + 2 * math.pi * k) / 3)
                   for k in range(3))  # fmt: skip
    assert all(float(gradient(momentum.hollow, (x, 0.0)).norm()) < 1e-12 for x in roots)
    bends = [torch.linalg.eigvalsh(hessian(momentum.hollow, (x, 0.0)))[0] > 0 for x in roots]
    assert bends == [True, False, True] and abs(roots[1]) == pytest.approx(momentum.TOP, abs=0.01)
    left, right = (momentum.hollow(torch.tensor(x), torch.tensor(0.0)) for x in (roots[0], roots[2]))
    assert right < left


def test_the_movement_is_the_loop_written_out() -> None:
    path = descend(momentum.hollow, momentum.START, MOMENTUM, 20, lr=0.01, momentum=0.9)
    movement = torch.zeros(2, dtype=torch.float64)
    for step, expected in enumerate(momentum.weighted(path, 0.01, 0.9)):
        movement = 0.9 * movement - 0.01 * gradient(momentum.hollow, path.places[step])
        assert torch.allclose(movement, expected, atol=1e-15)


def test_both_arrows_together_lead_to_the_next_place() -> None:
    path = descend(momentum.bowl, momentum.FROM, MOMENTUM, 6, lr=momentum.LONG, momentum=momentum.KEPT)
    for step in (1, 4):
        kept, own = momentum.parted(path, step)
        assert (kept.x, kept.y) == tuple(path.places[step].tolist())
        ends = torch.tensor([own.x + own.dx, own.y + own.dy], dtype=torch.float64)
        assert torch.allclose(ends, path.places[step + 1])
        down = -momentum.LONG * gradient(momentum.bowl, path.places[step])
        assert torch.allclose(torch.tensor([own.dx, own.dy], dtype=torch.float64), down)


def test_in_the_ravine_both_go_at_the_rate_of_theory() -> None:
    slow, fast = momentum.ways_down_the_ravine()
    left = [float(way.places[-1].norm()) for way in (slow, fast)]
    assert left[0] == pytest.approx(math.sqrt(2) * (99 / 101) ** 100)
    assert left[1] ** (1 / 100) == pytest.approx(9 / 11, rel=0.06)  # t · (9/11)ᵗ: both roots are equal there


def test_on_a_training_the_momenta_are_raced() -> None:
    case = small(lr=0.02)
    parts = momentum.on(case, english, 4.0, silent)
    assert [figure.name.split("= ")[1] for figure in parts.figures] == ["0", "0.5", "0.9", "0.99"]
    (claim,) = parts.claims
    assert (claim.left.value, claim.right.value) == (parts.figures[2].value, parts.figures[0].value)
    assert len(parts.charts[0].curves) == 4 and "seeds" in parts.notes[0]


def test_an_optimizer_without_momentum_is_told() -> None:
    case = small(torch.optim.Adagrad, lr=0.05)
    assert "Adagrad has none to change" in momentum.on(case, english, 3.0, silent).notes[0]
    assert "没有" in momentum.on(case, chinese, 3.0, silent).notes[0]
