"""Fieller's interval: the set it is defined as, by brute force; unbounded where the denominator may be zero."""

import math

import pytest
import torch

from unstuck.linalg.ratio import quotient

CASES = {
    "both sure": (2.0, 1.0, 0.1, 0.1, 0.0),
    "correlated": (2.0, 1.0, 0.3, 0.2, 0.8),
    "numerator may be zero": (0.1, 1.0, 0.3, 0.1, 0.0),
    "denominator may be zero": (2.0, 0.1, 0.1, 0.2, 0.3),
    "both may be zero": (0.1, 0.1, 0.3, 0.3, 0.0),
    "denominator negative": (2.0, -0.1, 0.1, 0.2, 0.0),
    "denominator surely negative": (2.0, -1.0, 0.1, 0.1, 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_every_ratio_that_the_estimates_allow(name):
    a, b, sa, sb, rho = CASES[name]
    covariance = ((sa * sa, rho * sa * sb), (rho * sa * sb, sb * sb))
    found = quotient(a, b, covariance, t=2.0)
    theta = torch.logspace(-4, 4, 20001, dtype=torch.float64)
    variance = sa * sa - 2 * theta * rho * sa * sb + theta**2 * sb * sb
    allowed = theta[(a - theta * b).square() <= 4 * variance]
    if not len(allowed):
        assert found.high < 1e-4 or found.low == 0.0
        return
    inside = (theta >= found.low) & (theta <= found.high)
    assert bool(inside[torch.isin(theta, allowed)].all())
    assert found.low == pytest.approx(float(allowed.min()), rel=2e-3, abs=2e-4)
    assert (found.high == math.inf and float(allowed.max()) > 9e3) or found.high == pytest.approx(
        float(allowed.max()), rel=2e-3
    )


def test_without_errors_it_is_the_ratio():
    assert quotient(3.0, 2.0, ((0.0, 0.0), (0.0, 0.0)), 2.0) == (1.5, 1.5, 1.5)


def test_a_denominator_that_may_just_be_zero_has_no_upper_end():
    found = quotient(2.0, 2.0, ((0.0, 0.0), (0.0, 1.0)), 2.0)
    assert found.low == pytest.approx(0.5)
    assert found.high == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_says_nothing(bad):
    found = quotient(1.0, 1.0, ((bad, 0.0), (0.0, 1.0)), 2.0)
    assert (found.low, found.high) == (0.0, math.inf)


def test_values_without_a_positive_denominator():
    assert quotient(1.0, 0.0, ((0.1, 0.0), (0.0, 0.1)), 2.0).value == math.inf
    assert math.isnan(quotient(0.0, 0.0, ((0.1, 0.0), (0.0, 0.1)), 2.0).value)
