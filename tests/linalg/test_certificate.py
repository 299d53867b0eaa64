"""Certificates fail as rarely as they say: over many starts, on spectra where something can hide."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from unstuck.errors import BadArgument
from unstuck.linalg.certificate import Ends, bounds, neighbourhoods, share
from unstuck.linalg.lanczos import Ritz, lanczos

F64 = torch.float64
SIZE = 40
SEEDS = 300
FAILURE = 0.1
ALLOWED = FAILURE + 3 * math.sqrt(FAILURE * (1 - FAILURE) / SEEDS)
LOOKS = (1, 2, 3, 5, 9)
ROUNDING = 1e-13
"""Against the largest eigenvalue, in float64."""


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spectra() -> dict[str, Tensor]:
    uniform, steps = torch.rand(SIZE, generator=rng(1), dtype=F64), torch.arange(SIZE, dtype=F64)
    return {
        "one just outside of a bulk": torch.cat([uniform[1:], torch.tensor([-0.02], dtype=F64)]),
        "geometric, negative": -(0.7**steps),
        "zeros and outliers": torch.tensor([-1e-3, -1, 2, 5] + [0] * (SIZE - 4), dtype=F64),
        "indefinite": torch.randn(SIZE, generator=rng(2), dtype=F64),
        "an outlier that drowns the rest": torch.cat([uniform[2:], torch.tensor([-1.0, 1e6], dtype=F64)]),
        "twice the smallest": torch.cat([uniform[2:], torch.tensor([-0.3, -0.3], dtype=F64)]),
    }


SPECTRA = spectra()


@dataclass(frozen=True)
class Run:
    """What one start was told at every look, and where it ended."""

    looks: tuple[tuple[int, Ends], ...]
    ritz: Ritz


@functools.cache
def runs(name: str) -> tuple[Run, ...]:
    """A normal start has the same law in every basis: the eigenbasis will do."""
    values = SPECTRA[name]
    rounding = ROUNDING * float(values.abs().max())

    def one(seed: int) -> Run:
        looks: list[tuple[int, Ends]] = []

        def look(ritz: Ritz) -> bool:
            if ritz.products in LOOKS:
                looks.append((ritz.products, bounds(ritz, FAILURE, rounding)))
            return False

        start = torch.randn(SIZE, generator=rng(seed), dtype=F64)
        ritz = lanczos(lambda v: values * v, start, look, max(LOOKS) + 1)
        if ritz.exhausted:
            looks.append((ritz.products, bounds(ritz, FAILURE, rounding)))
        return Run(tuple(looks), ritz)

    return tuple(map(one, range(SEEDS)))


def too_high(ends: Ends, values: Tensor) -> bool:
    return float(values.min()) < ends.low


def too_low(ends: Ends, values: Tensor) -> bool:
    return float(values.max()) > ends.high


@pytest.mark.parametrize("name", SPECTRA)
def test_both_ends_are_caught_at_every_number_of_products(name: str) -> None:
    for place in range(len(LOOKS)):
        looked = [run.looks[place][1] for run in runs(name) if len(run.looks) > place]
        assert sum(too_high(ends, SPECTRA[name]) for ends in looked) / SEEDS <= ALLOWED
        assert sum(too_low(ends, SPECTRA[name]) for ends in looked) / SEEDS <= ALLOWED


@pytest.mark.parametrize("name", SPECTRA)
def test_both_ends_are_caught_at_all_numbers_of_products_at_once(name: str) -> None:
    """Whoever stops when they please cannot do worse than that."""
    for wrong in (too_high, too_low):
        failed = sum(any(wrong(ends, SPECTRA[name]) for _, ends in run.looks) for run in runs(name))
        assert failed / SEEDS <= ALLOWED


@pytest.mark.parametrize("part", [0.03, 0.3, 1.0])
@pytest.mark.parametrize("name", SPECTRA)
def test_stopping_at_the_first_narrow_interval_keeps_the_promise(name: str, part: float) -> None:
    width = part * float(SPECTRA[name].max() - SPECTRA[name].min())
    failed = 0
    for run in runs(name):
        first = next((ends for _, ends in run.looks if ends.least - ends.low < width), None)
        failed += first is not None and too_high(first, SPECTRA[name])
    assert failed / SEEDS <= ALLOWED


def test_the_promise_is_not_kept_by_saying_nothing() -> None:
    """Where one eigenvalue stands alone the bound is sharp: it fails about as often as stated."""
    values, told = SPECTRA["zeros and outliers"], runs("zeros and outliers")
    failed = sum(any(too_high(ends, values) for _, ends in run.looks) for run in told)
    assert failed / SEEDS >= FAILURE - 3 * math.sqrt(FAILURE * (1 - FAILURE) / SEEDS)


@pytest.mark.parametrize("name", SPECTRA)
def test_ritz_values_are_inside_of_the_ends(name: str) -> None:
    low, high = float(SPECTRA[name].min()), float(SPECTRA[name].max())
    for run in runs(name):
        for _, ends in run.looks:
            assert ends.low <= ends.least and ends.most <= ends.high
            assert ends.least >= low and ends.most <= high


@pytest.mark.parametrize("name", ["twice the smallest", "geometric, negative", "indefinite"])
def test_intervals_close_on_the_smallest(name: str) -> None:
    values = SPECTRA[name]
    ritz = lanczos(lambda v: values * v, torch.randn(SIZE, generator=rng(0), dtype=F64), lambda _: False, 30)
    ends = bounds(ritz, 0.01)
    assert ends.least - ends.low < 1e-3 * float(values.max() - values.min())


@pytest.mark.parametrize("name", SPECTRA)
def test_every_eigenvalue_is_in_some_neighbourhood(name: str) -> None:
    values, slack = SPECTRA[name], ROUNDING * float(SPECTRA[name].abs().max())
    outside = torch.zeros(SIZE)
    for run in runs(name):
        around, ritz = neighbourhoods(run.ritz, FAILURE), run.ritz.values
        reached = (values[:, None] >= ritz - around[:, 0] - slack) & (values[:, None] <= ritz + around[:, 1] + slack)
        outside += (~reached.any(dim=1)).float()
    assert float(outside.max()) / SEEDS <= ALLOWED


def test_neighbourhoods_close_around_what_has_converged() -> None:
    values = SPECTRA["zeros and outliers"] + 1e-6 * SPECTRA["indefinite"]
    ritz = lanczos(lambda v: values * v, torch.randn(SIZE, generator=rng(0), dtype=F64), lambda _: False, 9)
    around = neighbourhoods(ritz, 0.01)
    assert around.shape == (9, 2) and bool((around >= 0).all())
    assert float(around[[0, -1, -2]].max()) < 1e-3


def test_neighbourhoods_and_bounds_agree_on_the_ends() -> None:
    ritz = runs("indefinite")[0].ritz
    ends, around = bounds(ritz, FAILURE), neighbourhoods(ritz, FAILURE)
    assert ends.low == float(ritz.values[0] - around[0, 0])
    assert ends.high == float(ritz.values[-1] + around[-1, 1])


# --- the rest of the promise -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 50, 2000])
def test_a_share_is_as_rare_as_stated(size: int) -> None:
    starts = torch.randn(4000, size, generator=rng(size), dtype=F64)
    parts = starts[:, 0].abs() / starts.norm(dim=1)
    for failure in (0.01, 0.1, 0.5):
        rate = float((parts < share(size, failure)).double().mean())
        assert abs(rate - failure) < 4 * math.sqrt(failure * (1 - failure) / 4000)


def test_in_one_dimension_there_is_nothing_to_miss() -> None:
    assert share(1, 0.1) == 1.0


def test_rarer_failures_widen() -> None:
    ritz = runs("indefinite")[0].ritz
    widths = [bounds(ritz, failure).high - bounds(ritz, failure).low for failure in (0.5, 0.1, 1e-3, 1e-9)]
    assert widths == sorted(widths) and widths[0] < widths[-1]


def test_rounding_widens_by_itself() -> None:
    ritz = runs("indefinite")[0].ritz
    exact, rounded = bounds(ritz, FAILURE), bounds(ritz, FAILURE, rounding=0.5)
    assert (rounded.low, rounded.least) == (exact.low - 0.5, exact.least + 0.5)
    assert (rounded.most, rounded.high) == (exact.most - 0.5, exact.high + 0.5)
    assert (rounded.rounding, rounded.failure) == (0.5, FAILURE)


def test_all_of_the_space_leaves_nothing_to_hide() -> None:
    values = torch.randn(7, generator=rng(3), dtype=F64)
    ritz = lanczos(lambda v: values * v, torch.randn(7, generator=rng(4), dtype=F64), lambda _: False, 20)
    ends = bounds(ritz, FAILURE)
    assert ritz.exhausted and ritz.products == 7
    assert (ends.low, ends.least) == pytest.approx((float(values.min()),) * 2, rel=1e-12)
    assert (ends.most, ends.high) == pytest.approx((float(values.max()),) * 2, rel=1e-12)
    assert neighbourhoods(ritz, FAILURE).tolist() == [[0.0, 0.0]] * 7


@pytest.mark.parametrize("rounding", [0.0, 0.25])
def test_an_exhausted_run_still_allows_for_rounding(rounding: float) -> None:
    ritz = lanczos(lambda v: v, torch.randn(5, generator=rng(0), dtype=F64), lambda _: False, 9)
    ends = bounds(ritz, FAILURE, rounding)
    assert ritz.exhausted and ritz.products == 1
    assert ends.low == pytest.approx(1 - rounding) and ends.high == pytest.approx(1 + rounding)


def test_one_product_of_an_operator_without_trace() -> None:
    """The Ritz value is zero: nothing but the residual sets a scale."""
    values = torch.tensor([-1.0, 1.0], dtype=F64)
    ends = bounds(lanczos(lambda v: values * v, torch.ones(2, dtype=F64), lambda _: False, 1), FAILURE)
    assert ends.least == pytest.approx(0, abs=1e-15) and ends.low < -1 < 1 < ends.high


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-4), (F64, 1e-13)])
def test_a_space_that_is_exhausted_to_rounding_may_hide_more_than_rounding(dtype: torch.dtype, apart: float) -> None:
    """The start's share γ in the lonely eigenvalue is small, so that all that leaves the space is `apart`·γ: less than
    Lanczos tells from nothing. The eigenvalue itself is a hundred times further out than rounding."""
    size, seeds = 10_000, 100
    values = torch.ones(size, dtype=dtype)
    values[1] = 1 - apart
    failed = 0
    for seed in range(seeds):
        start = torch.randn(size, generator=rng(seed), dtype=dtype)
        ritz = lanczos(lambda v: values * v, start, lambda _: False, 6)
        failed += too_high(bounds(ritz, FAILURE, rounding=10 * torch.finfo(dtype).eps), values)
    assert failed / seeds <= FAILURE + 3 * math.sqrt(FAILURE * (1 - FAILURE) / seeds)


@pytest.mark.parametrize("name", ["one just outside of a bulk", "zeros and outliers", "indefinite"])
def test_float32_keeps_the_promise_with_its_rounding(name: str) -> None:
    values = SPECTRA[name].float()
    rounding = 10 * torch.finfo(torch.float32).eps * float(values.abs().max())
    failed = 0
    for seed in range(SEEDS):
        ritz = lanczos(lambda v: values * v, torch.randn(SIZE, generator=rng(seed)), lambda _: False, 8)
        failed += too_high(bounds(ritz, FAILURE, rounding), values)
    assert failed / SEEDS <= ALLOWED


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [bounds, neighbourhoods])
def test_blocks_are_refused(call) -> None:
    start = torch.randn(2, SIZE, generator=rng(0), dtype=F64)
    ritz = lanczos(lambda v: SPECTRA["indefinite"] * v, start, lambda _: False, 6)
    with pytest.raises(BadArgument, match="`ritz` must come from plain Lanczos"):
        call(ritz, FAILURE)


@pytest.mark.parametrize("failure", [0.0, 1.0, -0.1, math.nan])
@pytest.mark.parametrize("call", [bounds, neighbourhoods])
def test_a_failure_that_is_no_probability_is_refused(call, failure: float) -> None:
    with pytest.raises(BadArgument, match="`failure` must be a probability"):
        call(runs("indefinite")[0].ritz, failure)


def test_an_operator_that_is_zero_has_both_ends_at_zero() -> None:
    ritz = lanczos(torch.zeros_like, torch.randn(50, generator=torch.Generator().manual_seed(0)), lambda r: False, 9)
    ends = bounds(ritz, 0.01)
    assert (ends.low, ends.least, ends.most, ends.high) == (0.0, 0.0, 0.0, 0.0)
    assert not neighbourhoods(ritz, 0.01).any()
