"""What a race of many lanes can afford: updates and seeds for a given time.

    plan = affordable(seconds_a_step(problem), lanes=50, budget_s=20.0)
    plan.steps, plan.seeds
"""

from __future__ import annotations

from typing import NamedTuple

STEPS = (400, 200, 100, 60, 30)
SEEDS = (3, 2)
FASTER = 1.5
"""Heats are faster than plain loops by this factor at least (a CNN on two cores: 2; a small MLP: 5 to 7)."""


class Plan(NamedTuple):
    """Updates of each lane, and seeds."""

    steps: int
    seeds: int


def affordable(step_s: float, lanes: int, budget_s: float, most: int = STEPS[0]) -> Plan | None:
    """The largest plan that fits, with three seeds, or from a hundred updates down two; None where none fits."""
    seconds = step_s * lanes / FASTER
    for steps in STEPS:
        for seeds in SEEDS if steps <= 100 else SEEDS[:1]:
            if steps <= most and steps * seeds * seconds <= budget_s:
                return Plan(steps, seeds)
    return None
