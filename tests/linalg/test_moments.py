"""Moments of parts merge into the moments of all."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unstuck.errors import BadArgument
from unstuck.linalg.moments import Moments, merge, of

numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 6))
samples = st.lists(st.tuples(numbers, numbers), max_size=12).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64).reshape(len(rows), 2)
)


def assert_same(a: Moments, b: Moments, scale: float) -> None:
    assert a.count == b.count
    torch.testing.assert_close(a.mean, b.mean, rtol=1e-12, atol=1e-13 * scale)
    torch.testing.assert_close(a.deviations, b.deviations, rtol=1e-11, atol=1e-12 * scale**2)


def largest(*parts: Tensor) -> float:
    return max([1.0, *(float(part.abs().max()) for part in parts if part.numel())])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(samples, samples)
def test_a_merge_is_one_pass_over_all_and_commutes(a: Tensor, b: Tensor) -> None:
    together = of(torch.cat([a, b]))
    assert_same(merge(of(a), of(b)), together, largest(a, b))
    assert_same(merge(of(b), of(a)), together, largest(a, b))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(samples, samples, samples)
def test_a_merge_is_associative(a: Tensor, b: Tensor, c: Tensor) -> None:
    left = merge(merge(of(a), of(b)), of(c))
    right = merge(of(a), merge(of(b), of(c)))
    assert_same(left, right, largest(a, b, c))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(samples)
def test_nothing_is_neutral(a: Tensor) -> None:
    nothing = of(torch.empty(0, 2))
    for merged in (merge(of(a), nothing), merge(nothing, of(a))):
        assert_same(merged, of(a), largest(a))
    assert merge(nothing, nothing).count == 0


def test_many_ranks_are_one_merge_whatever_the_shape() -> None:
    values = torch.randn(37, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    merged = functools.reduce(merge, map(of, values.split(5)))
    torch.testing.assert_close(merged.mean, values.mean(0))
    torch.testing.assert_close(merged.variance, values.var(0))
    torch.testing.assert_close(merged.standard_error, values.std(0) / math.sqrt(37))


def test_scalars_have_moments_without_dimensions() -> None:
    found = of(torch.tensor([1.0, 2.0, 6.0]))
    assert (found.count, float(found.mean), float(found.variance)) == (3, 3.0, 7.0)
    assert found.mean.shape == () and found.mean.dtype == torch.float64


def test_a_small_variance_around_a_large_mean_survives() -> None:
    values = 1e8 + torch.randn(1000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    merged = functools.reduce(merge, map(of, values.split(10)))
    assert float(merged.variance) == pytest.approx(float((values - 1e8).var()), rel=1e-6)


def test_integers_and_half_precision_are_summed_in_float64() -> None:
    assert float(of(torch.full((3000,), 100, dtype=torch.int8)).mean) == 100.0
    assert float(of(torch.full((70000,), 3.0, dtype=torch.float16)).mean) == 3.0


def test_fewer_than_two_samples_say_nothing_about_the_variance() -> None:
    for values in (torch.empty(0), torch.tensor([4.0])):
        assert float(of(values).variance) == math.inf
        assert float(of(values).standard_error) == math.inf


def test_the_standard_error_is_that_of_the_mean() -> None:
    draws = torch.randn(4000, 25, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = of(draws.T)
    assert float(found.mean.var()) == pytest.approx(float(found.standard_error.square().mean()), rel=0.1)


def test_a_lone_scalar_is_refused() -> None:
    with pytest.raises(BadArgument, match=r"moments\.of: `values`"):
        of(torch.tensor(1.0))


def test_different_shapes_are_refused() -> None:
    with pytest.raises(BadArgument, match=r"moments\.merge: `b`"):
        merge(of(torch.ones(3)), of(torch.ones(3, 2)))
