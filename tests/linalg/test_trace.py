"""The estimated trace is unbiased, its error is its error, and what has low rank is exact."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unstuck.errors import BadArgument
from unstuck.linalg.trace import Trace, trace

SEEDS = 400
SIZE = 40


def symmetric(values: Tensor, seed: int = 0) -> Tensor:
    drawn = torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q = torch.linalg.qr(drawn).Q
    return (q * values) @ q.T


STEPS = torch.arange(SIZE, dtype=torch.float64)
MATRICES = {
    "decay": symmetric(0.8**STEPS),
    "flat": symmetric(1 + STEPS / SIZE),
    "indefinite": symmetric(STEPS - SIZE / 3),
    "outliers": symmetric(torch.where(STEPS < 4, 100.0 * (STEPS - 1), 0.1)),
}


def estimates(matrix: Tensor, products: int) -> list[Trace]:
    return [trace(lambda rows: rows @ matrix, len(matrix), products, seed) for seed in range(SEEDS)]


@pytest.mark.parametrize("products", [4, 15, 24])
@pytest.mark.parametrize("name", MATRICES)
def test_unbiased_and_covered_at_the_stated_confidence(name: str, products: int) -> None:
    matrix = MATRICES[name]
    true, found = float(matrix.trace()), estimates(matrix, products)
    values = torch.tensor([f.value for f in found], dtype=torch.float64)
    assert abs(float(values.mean()) - true) < 3.5 * float(values.std()) / math.sqrt(SEEDS)
    # the squared error is unbiased for the variance, conditionally on the subspace
    stated = math.sqrt(sum(f.error**2 for f in found) / SEEDS)
    assert stated == pytest.approx(float(values.std()), rel=0.25)
    # four draws that each hang on a few outliers are far from normal: the documented exception
    excess = 0.05 if (name, products) == ("outliers", 4) else 0.0
    assert missed(found, true) / SEEDS < 0.1 + excess + 3 * math.sqrt(0.1 * 0.9 / SEEDS)


def missed(found: list[Trace], true: float) -> int:
    intervals = [f.interval(0.9) for f in found]
    return sum(not low <= true <= high for low, high in intervals)


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_low_rank_is_exact(rank: int) -> None:
    matrix = symmetric(torch.where(rank > STEPS, STEPS - 2.5, 0.0))
    found = trace(lambda rows: rows @ matrix, SIZE, products=15, seed=3)
    assert found.value == pytest.approx(float(matrix.trace()), abs=1e-10)
    assert found.error < 1e-10


def test_diagonals_are_exact_with_random_signs() -> None:
    found = trace(lambda rows: rows * STEPS, SIZE, products=3, seed=0)
    assert (found.value, found.error, found.draws, found.products) == (float(STEPS.sum()), 0.0, 3, 3)


def test_as_many_products_as_dimensions_are_exact() -> None:
    matrix = MATRICES["indefinite"]
    found = trace(lambda rows: rows @ matrix, SIZE, products=1000, seed=0)
    assert found.value == pytest.approx(float(matrix.trace()), rel=1e-12)
    assert (found.error, found.products, found.interval(0.9)) == (0.0, SIZE, (found.value, found.value))


def test_a_subspace_pays_where_the_spectrum_decays() -> None:
    matrix = MATRICES["outliers"]
    plain = sum(trace(lambda rows: rows @ matrix, SIZE, 5, seed).error for seed in range(20))
    found = sum(trace(lambda rows: rows @ matrix, SIZE, 15, seed).error for seed in range(20))
    assert found < plain / 20


@pytest.mark.parametrize("products", [1, 2, 5, 6, 7, 20, 39])
def test_no_more_products_than_allowed(products: int) -> None:
    rows_seen = 0

    def matvec(rows: Tensor) -> Tensor:
        nonlocal rows_seen
        rows_seen += len(rows)
        return rows @ MATRICES["flat"]

    found = trace(matvec, SIZE, products, seed=0)
    assert rows_seen == found.products == products


def test_one_draw_says_nothing_about_its_error() -> None:
    found = trace(lambda rows: rows @ MATRICES["flat"], SIZE, products=1, seed=0)
    assert found.error == math.inf and found.interval(0.9) == (-math.inf, math.inf)


def test_the_same_seed_gives_the_same_figure() -> None:
    first, second, other = (trace(lambda rows: rows @ MATRICES["flat"], SIZE, 9, seed) for seed in (5, 5, 6))
    assert first == second != other


def test_float32_gives_the_same_to_its_rounding() -> None:
    wide, narrow = (
        trace(lambda rows: rows @ MATRICES["outliers"].to(rows.dtype), SIZE, 20, seed=0, dtype=dtype)
        for dtype in (torch.float64, torch.float32)
    )
    assert narrow.value == pytest.approx(wide.value, rel=1e-5)


@pytest.mark.parametrize(("size", "products", "named"), [(0, 5, "size"), (5, 0, "products")])
def test_bad_numbers_are_refused(size: int, products: int, named: str) -> None:
    with pytest.raises(BadArgument, match=f"trace: `{named}`"):
        trace(lambda rows: rows, size, products, seed=0)


def test_products_of_another_shape_are_refused() -> None:
    with pytest.raises(BadArgument, match="trace: `matvec` must map rows"):
        trace(lambda rows: rows[0], SIZE, 5, seed=0)


def test_products_that_are_not_finite_are_refused() -> None:
    with pytest.raises(BadArgument, match="not finite"):
        trace(lambda rows: rows * math.nan, SIZE, 5, seed=0)


@pytest.mark.parametrize("confidence", [0.0, 1.0, math.nan])
def test_a_confidence_outside_of_0_and_1_is_refused(confidence: float) -> None:
    with pytest.raises(BadArgument, match=r"Trace\.interval: `confidence`"):
        Trace(1.0, 0.1, 5, 5).interval(confidence)
