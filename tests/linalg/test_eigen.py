"""Extreme eigenvalues against spectra that are known: right wherever `converged` is said, over many starts."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor

from unstuck.errors import BadArgument
from unstuck.linalg.certificate import bounds
from unstuck.linalg.eigen import Eigen, blur, error_estimate, extremes, largest, random_start

F64 = torch.float64
SEEDS = 100
ROUNDING = 1e-13
"""Against the largest eigenvalue, in float64."""


def bulk(count: int = 50, top: float = 1.0) -> Tensor:
    return top * torch.rand(count, generator=torch.Generator().manual_seed(1), dtype=F64)


def joined(*parts) -> Tensor:
    return torch.cat([torch.as_tensor(part, dtype=F64) for part in parts])


SPECTRA = {
    "isolated ends": joined(bulk(), [-0.5, 3.0]),
    "clusters at both ends": joined(bulk(), [-0.2, -0.2 + 1e-6, -0.2 + 2e-6, 2 - 1e-5, 2 - 1e-7, 2]),
    "an end just outside of the bulk": joined(bulk(), [-0.02, 1.001]),
    "tiny, beside a huge one": joined(bulk(24, 1e-3), [-1e-5, 1e4]),
    "few distinct": joined(torch.zeros(50), [-1e-3, -1e-2, 1.0, 5.0, 7.0]),
    "many decades": joined(torch.logspace(-5, 2, 20), -torch.logspace(-5, 0, 20)),
    "all negative": joined(-0.1 - bulk(), [-0.05, -4.0]),
}


def diagonal(values: Tensor):
    """A normal start has the same law in every basis: the eigenbasis will do."""
    return lambda v: values.to(v.dtype) * v


def found(values: Tensor, want: str, seed: int = 0, **options) -> Eigen:
    return extremes(diagonal(values), random_start(len(values), F64, seed=seed), want, **options)


@functools.cache
def runs(name: str) -> tuple[Eigen, ...]:
    return tuple(found(SPECTRA[name], "both", seed) for seed in range(SEEDS))


def outside(interval: tuple[float, float], true: float, slack: float) -> bool:
    return not interval[0] - slack <= true <= interval[1] + slack


@pytest.mark.parametrize("name", SPECTRA)
def test_no_seed_misses_the_tolerance(name):
    truth = float(SPECTRA[name].min()), float(SPECTRA[name].max())
    assert all(one.converged for one in runs(name))
    off = [abs(value - true) / abs(true) for one in runs(name) for value, true in zip(one.values, truth, strict=True)]
    assert max(off) <= 1e-2


@pytest.mark.parametrize("name", SPECTRA)
def test_intervals_hold_at_their_rate(name):
    truth = float(SPECTRA[name].min()), float(SPECTRA[name].max())
    allowed = 0.1 + 3 * math.sqrt(0.1 * 0.9 / SEEDS)
    for end, true in enumerate(truth):
        slack = ROUNDING * max(map(abs, truth))
        assert not any(outside(one.intervals[end], true, slack) for one in runs(name))
        loose = [bounds(one.ritz, 0.1) for one in runs(name)]
        intervals = [((ends.low, ends.least), (ends.most, ends.high))[end] for ends in loose]
        assert sum(outside(interval, true, slack) for interval in intervals) / SEEDS <= allowed


def test_vectors_are_of_length_one_and_have_their_values():
    values = SPECTRA["isolated ends"]
    one = found(values, "both", tolerance=1e-6)
    for value, vector, error in zip(one.values, one.vectors, one.errors, strict=True):
        assert float(vector.norm()) == pytest.approx(1, abs=1e-12)
        assert float(vector @ (values * vector)) == pytest.approx(value, abs=1e-12)
        assert error <= 1e-6 * abs(value)
    assert one.vectors[0].abs().argmax() == values.argmin() and one.vectors[1].abs().argmax() == values.argmax()


@pytest.mark.parametrize(("want", "ends"), [("min", ("min",)), ("max", ("max",)), ("both", ("min", "max"))])
def test_only_what_was_asked_for_is_answered(want, ends):
    values = SPECTRA["isolated ends"]
    one = found(values, want)
    assert one.values == pytest.approx([float(getattr(values, end)()) for end in ends], rel=1e-2)
    assert len(one.intervals) == len(one.errors) == len(one.vectors) == len(ends)


def test_out_of_products_is_said():
    one = found(SPECTRA["many decades"], "min", most=5)
    assert not one.converged and one.products == 5
    low, high = one.intervals[0]
    assert low <= float(SPECTRA["many decades"].min()) <= high


def test_rounding_is_taken_off_both_ends():
    values = SPECTRA["isolated ends"]
    bare, blurred = found(values, "both"), found(values, "both", rounding=1e-3)
    width = blur(bare.ritz, 1e-3)
    assert width == pytest.approx(math.sqrt(bare.products) * 1e-3 * bare.scale)
    for (low, high), (lower, higher) in zip(bare.intervals, blurred.intervals, strict=True):
        assert lower == pytest.approx(low - width) and higher == pytest.approx(high + width)


def test_in_float32_the_interval_holds_with_its_rounding():
    values = SPECTRA["isolated ends"]
    for seed in range(20):
        start = random_start(len(values), torch.float32, seed=seed)
        one = extremes(diagonal(values), start, "both", rounding=1e-6)
        for (low, high), true in zip(one.intervals, (-0.5, 3.0), strict=True):
            assert low <= true <= high


@pytest.mark.parametrize("values", [[3.0], [2.0, -1.0], [1.0] * 9, [0.0] * 5 + [1.0]], ids=str)
def test_tiny_and_repeated_spectra_are_exact(values):
    values = torch.tensor(values, dtype=F64)
    one = found(values, "both")
    assert one.converged
    assert one.values == pytest.approx((float(values.min()), float(values.max())), abs=1e-14)


def test_an_operator_that_is_zero_has_zeros_at_both_ends():
    one = found(torch.zeros(50, dtype=F64), "both")
    assert one.converged and one.values == (0.0, 0.0)
    assert all(low <= 0 <= high for low, high in one.intervals)


# --- the largest few --------------------------------------------------------------------------------------------------

TOPS: dict[str, list[float]] = {
    "isolated": [1.0, 2.0, 3.0, 5.0, 9.0],
    "near each other": [1.0, 1.001, 1.0011, 2.0, 2.0 + 1e-6],
    "decades apart": [0.5, 5.0, 50.0, 500.0, 5e4],
    "some below zero asked for": [],
}


@pytest.mark.parametrize("name", TOPS)
def test_all_of_the_largest_are_found(name):
    below = bulk(60, 0.3) if TOPS[name] else joined(torch.linspace(-2, -1, 12), [1.0, 2.0, 3.0])
    values = joined(below, TOPS[name])
    truth = values.sort().values[-5:]
    for seed in range(25):
        one = largest(diagonal(values), random_start(len(values), F64, seed=seed), 5)
        assert one.converged
        assert torch.allclose(torch.tensor(one.values, dtype=F64), truth, rtol=1e-3, atol=0)
        slack = ROUNDING * float(truth[-1])
        assert all(low - slack <= t <= high + slack for (low, high), t in zip(one.intervals, truth, strict=True))


def test_all_of_them_are_the_whole_spectrum():
    values = joined(torch.linspace(-2, 3, 17))
    one = largest(diagonal(values), random_start(17, F64), 17)
    assert one.converged and one.products == 17
    assert one.values == pytest.approx(values.tolist(), abs=1e-12)


def test_the_largest_out_of_products():
    values = joined(bulk(), TOPS["decades apart"])
    one = largest(diagonal(values), random_start(len(values), F64), 5, most=4)
    assert not one.converged and one.products == 4 and len(one.values) == 4


# --- parts and refusals -----------------------------------------------------------------------------------------------


def test_the_estimate_is_the_residual_squared_over_the_gap():
    ritz = found(SPECTRA["isolated ends"], "both").ritz
    residual, gap = float(ritz.residuals[0]), float(ritz.values[1] - ritz.values[0])
    assert error_estimate(ritz, 0) == pytest.approx(min(residual, residual**2 / gap))
    assert error_estimate(ritz, 0) >= float(ritz.values[0]) + 0.5


def test_starts_are_normal_and_their_seed_is_all_that_counts():
    torch.manual_seed(1)
    first = random_start(4000, F64, seed=3)
    torch.manual_seed(2)
    assert torch.equal(first, random_start(4000, F64, seed=3))
    assert not torch.equal(first, random_start(4000, F64, seed=4))
    assert abs(float(first.mean())) < 0.06 and float(first.std()) == pytest.approx(1, abs=0.05)
    assert random_start(3, torch.float32).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: found(bulk(), "top"), "extremes: `want` must be 'min', 'max' or 'both', got 'top'"),
        (lambda: largest(diagonal(bulk()), random_start(50, F64), 0), "`count` must be between 1 and 50"),
        (lambda: largest(diagonal(bulk()), random_start(50, F64), 51), "`count` must be between 1 and 50"),
        (lambda: found(bulk(), "min", failure=0.0), "`failure` must be a probability between 0 and 1"),
        (lambda: found(bulk(), "min", most=0), "`most` must be at least 1"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(BadArgument, match=message):
        call()
