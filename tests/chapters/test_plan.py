"""The plan against all that could be had."""

from __future__ import annotations

import itertools
import random

import pytest

from unstuck.chapters.plan import FASTER, SEEDS, STEPS, Plan, affordable

ALLOWED = [(steps, seeds) for steps, seeds in itertools.product(STEPS, SEEDS) if seeds == max(SEEDS) or steps <= 100]


def test_it_is_the_largest_that_fits() -> None:
    draw = random.Random(0)
    fitted = set()
    for _ in range(2000):
        step_s, lanes, budget_s = 10 ** draw.uniform(-5, 0), draw.randint(1, 100), 10 ** draw.uniform(-1, 3)
        most = draw.choice([*STEPS, 50, 1000, 10])
        fits = [(steps, seeds) for steps, seeds in ALLOWED
                if steps <= most and steps * seeds * lanes * step_s / FASTER <= budget_s]  # fmt: skip
        found = affordable(step_s, lanes, budget_s, most)
        assert found == (max(fits, key=lambda plan: plan[0] * plan[1]) if fits else None)
        fitted.add(found)
    assert fitted == {*ALLOWED, None}


def test_two_seeds_at_least_and_three_where_updates_are_many() -> None:
    assert affordable(0.0, 80, 1.0) == Plan(400, 3)
    assert affordable(0.0, 80, 1.0, most=100) == Plan(100, 3)
    assert affordable(FASTER / 200, 1, 1.0) == Plan(100, 2)
    assert affordable(FASTER / 60, 1, 1.0) == Plan(30, 2)


@pytest.mark.parametrize(
    ("step_s", "lanes", "budget_s", "most"), [(FASTER / 59, 1, 1.0, 400), (1e-6, 1, 1.0, 29), (1.0, 10, 0.0, 400)]
)
def test_none_where_none_fits(step_s: float, lanes: int, budget_s: float, most: int) -> None:
    assert affordable(step_s, lanes, budget_s, most) is None
