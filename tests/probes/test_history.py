"""The loss as it was seen: level, trend, and whether it rose again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from unstuck.errors import UnstuckError
from unstuck.probes.history import measure
from unstuck.problem import Problem

NOISE = np.random.default_rng(0).normal(size=200)
FALL = np.linspace(1.0, 0.1, 100)


def history(losses):
    made = Problem(nn.Linear(2, 1), nn.MSELoss(), [(torch.zeros(4, 2), torch.zeros(4, 1))] * 2)
    return measure(replace(made, loop=replace(made.loop, losses=tuple(map(float, losses)))))


@pytest.mark.parametrize(
    ("losses", "rose"),
    [
        ([*FALL, *np.linspace(0.1, 0.3, 100)], True),
        ([*FALL, *np.linspace(0.1, 0.3, 100)] + 0.02 * NOISE, True),
        ([*FALL, *[0.1] * 100], False),
        (np.linspace(1.0, 0.01, 200), False),
        (0.2 + 0.05 * NOISE, False),
        (0.05 * np.abs(NOISE), False),
        ([*FALL, *(0.1 + 0.02 * NOISE[:100])], False),
        ([*FALL, *(0.1 + 0.02 * NOISE[:100] + np.linspace(0, 0.02, 100))], False),
        ([*np.linspace(1.0, 0.001, 100), *np.linspace(0.001, 0.01, 100)], False),  # a ripple at the bottom
        ([*FALL, *[float("nan")]], True),
        ([*FALL, float("inf"), *[0.1] * 100], True),
        (-FALL, False),
    ],
)
def test_a_loss_that_came_down_and_went_up_again_rose(losses, rose):
    assert history(losses).rose == rose


def test_level_and_trend_of_a_straight_line():
    found = history(np.linspace(2.0, 1.0, 101))
    assert (found.count, found.highest, found.finite) == (101, 2.0, True)
    assert found.first == pytest.approx(1.98) and found.last == found.lowest == pytest.approx(1.045)
    assert found.slope == pytest.approx(-0.5) and found.slope_error == pytest.approx(0, abs=1e-9)
    assert (found.jumps, found.bounce) == (0, 0)


def test_fewer_than_eight_losses_are_no_history():
    with pytest.raises(UnstuckError, match="eight"):
        history([1.0] * 7 + [float("nan")])
