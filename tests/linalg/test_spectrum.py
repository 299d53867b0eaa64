"""Shares of eigenvalues: brackets that are certain for every start, and intervals that fail as rarely as they say."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unstuck.errors import BadArgument
from unstuck.linalg.spectrum import Share, Spectrum, bracket, density, exact, index, quadrature, share_below

SIZE = 60
SEEDS = 300
CONFIDENCE = 0.9
FAILURES = 0.1 + 3 * math.sqrt(0.1 * 0.9 / SEEDS)
F64 = torch.float64


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spectra() -> dict[str, Tensor]:
    normal = torch.randn(SIZE, generator=rng(5), dtype=F64)
    return {
        "zeros and outliers": torch.tensor([-1, -0.5, 2, 5, 9] + [0] * (SIZE - 5), dtype=F64),
        "one negative": torch.cat([normal[1:].abs() + 0.1, torch.tensor([-1.0], dtype=F64)]),
        "clusters": torch.tensor([-1.0, 1.0, 3.0], dtype=F64).repeat(SIZE // 3) + 1e-3 * normal,
        "uniform": torch.linspace(-0.3, 0.7, SIZE, dtype=F64),
        "around zero": normal,
    }


SPECTRA = spectra()


def diagonal(values: Tensor) -> Callable[[Tensor], Tensor]:
    """A normal start has the same law in every basis: the eigenbasis will do."""
    return lambda v: values * v


@functools.cache
def spectrum(name: str, probes: int, most: int, seed: int) -> Spectrum:
    return quadrature(diagonal(SPECTRA[name]), SIZE, probes, most, seed)


def share(inside: Tensor) -> float:
    return float(inside.double().mean())


def holds(found: Share, true: float) -> bool:
    return found.low <= true <= found.high


# --- the bracket of one start's measure --------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 3, 7, 15])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_bracket_holds_for_every_start_at_every_point(name: str, most: int) -> None:
    values = SPECTRA[name]
    for seed in range(12):
        (probe,), resolution = spectrum(name, 1, most, seed).probes, spectrum(name, 1, most, seed).resolution
        start = torch.randn(SIZE, generator=rng(seed), dtype=F64)
        measure = start.square() / start.square().sum()
        anywhere = torch.rand(20, generator=rng(seed), dtype=F64) * 12 - 2
        beside = [probe.nodes + step for step in (0.0, 1e-9, -1e-9, 1e-4, -1e-4)]
        for t in torch.cat([anywhere, values[:5], *beside]).tolist():
            low, high = bracket(probe, t, resolution)
            assert low <= float(measure[values <= t + 1e-9].sum()) + 1e-12
            assert high >= float(measure[values < t - 1e-9].sum()) - 1e-12
            if not bool(((values - t).abs() < 1e-9).any()):
                assert low - 1e-12 <= float(measure[values < t].sum()) <= high + 1e-12


def test_the_bracket_is_the_sharpest_that_the_moments_allow() -> None:
    """Width = Christoffel function 1 / Σ p_k(t)², the largest mass at t of any measure with these moments."""
    (probe,) = spectrum("around zero", 1, 6, 0).probes
    start = torch.randn(SIZE, generator=rng(0), dtype=F64)
    values = SPECTRA["around zero"]
    vandermonde = torch.linalg.qr(torch.stack([values**k for k in range(7)], 1) * (start / start.norm())[:, None])
    for t in (-1.5, -0.33, 0.21, 0.9):
        powers = torch.tensor([t**k for k in range(7)], dtype=F64)
        orthonormal = torch.linalg.solve_triangular(vandermonde.R.T, powers[:, None], upper=False)
        low, high = bracket(probe, t, 0.0)
        assert high - low == pytest.approx(1 / float(orthonormal.square().sum()), rel=1e-8)


def test_the_bracket_closes_when_all_products_are_spent() -> None:
    (probe,) = spectrum("around zero", 1, SIZE, 0).probes
    for t in (-1.0, 0.0, 0.3):
        low, high = bracket(probe, t, 0.0)
        assert low == high


def test_nodes_and_weights_are_those_of_gauss() -> None:
    """m nodes integrate polynomials up to degree 2m − 1 exactly."""
    (probe,) = spectrum("around zero", 1, 4, 1).probes
    start = torch.randn(SIZE, generator=rng(1), dtype=F64)
    measure, values = start.square() / start.square().sum(), SPECTRA["around zero"]
    for degree in range(8):
        assert float(probe.weights @ probe.nodes**degree) == pytest.approx(float(measure @ values**degree), abs=1e-10)
    assert float(probe.weights @ probe.nodes**8) != pytest.approx(float(measure @ values**8), abs=1e-3)


# --- intervals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("probes", "most"), [(1, 9), (3, 5)])
@pytest.mark.parametrize("name", SPECTRA)
def test_intervals_fail_as_rarely_as_stated(name: str, probes: int, most: int) -> None:
    values, tolerance = SPECTRA[name], 0.02
    true = share(values < -tolerance), share(values.abs() <= tolerance), share(values > tolerance)
    failures = [0, 0, 0]
    for seed in range(SEEDS):
        found = quadrature(diagonal(values), SIZE, probes, most, seed)
        three = index(found, tolerance, CONFIDENCE)
        shares = (three.negative, three.zero, three.positive)
        failures = [f + (not holds(s, t)) for f, s, t in zip(failures, shares, true, strict=True)]
    assert max(failures) / SEEDS <= FAILURES


def test_the_interval_has_power_once_the_bracket_is_closed() -> None:
    """As narrow as six probes of 60 numbers allow, and failing about as often as stated, not never."""
    drawn = (quadrature(diagonal(SPECTRA["clusters"]), SIZE, 6, 3, seed) for seed in range(SEEDS))
    found = [share_below(each, 0.0, CONFIDENCE) for each in drawn]
    failed = sum(not holds(s, 1 / 3) for s in found) / SEEDS
    assert 0.1 - 3 * math.sqrt(0.1 * 0.9 / SEEDS) <= failed <= FAILURES
    deviation = math.sqrt(2 / 9 * 2 / (6 * SIZE))
    assert max(s.high - s.low for s in found) < 1.1 * 2 * 1.645 * deviation


@pytest.mark.parametrize("t", [-20.0, 20.0])
def test_beyond_the_spectrum_there_is_nothing(t: float) -> None:
    found = share_below(spectrum("uniform", 4, 8, 0), t)
    assert holds(found, float(t > 0))
    assert found.high - found.low < 0.03


def test_zero_products_of_information_leave_everything_open() -> None:
    found = share_below(spectrum("around zero", 1, 1, 0), 0.0)
    assert found.low < 0.01 and found.high > 0.99


def test_the_interval_narrows_with_probes_and_products() -> None:
    def width(probes: int, most: int) -> float:
        found = share_below(spectrum("uniform", probes, most, 0), 0.0)
        return found.high - found.low

    assert width(1, 5) > width(8, 5) > width(8, 20) > width(64, 40)


def test_a_huge_operator_with_few_negative_directions() -> None:
    """Two of 10⁹ numbers a probe: the law holds where a normal approximation would not."""
    (probe,) = spectrum("clusters", 1, 3, 0).probes
    seen = replace(probe, weights=torch.tensor([2e-9, 0.5, 0.5 - 2e-9], dtype=F64), residuals=torch.zeros(3, dtype=F64))
    found = share_below(Spectrum((seen,), 10**9, 3, 0.0), 0.0, 0.9)
    # γ² of two directions is χ²(2) / n there: from k = 0.37 to 6.5 of them
    assert 0.1 < found.low * 1e9 < 1 < 2 < found.high * 1e9 < 9


def test_float32_states_what_float32_can_know() -> None:
    """The space of this start is exhausted to rounding; what hides in the rest is not claimed to be absent."""
    size, apart = 4000, 1e-4
    values = torch.ones(size)
    values[: size // 100] = 1 - apart
    failures = 0
    for seed in range(60):
        found = quadrature(diagonal(values), size, 2, 6, seed, dtype=torch.float32)
        failures += not holds(share_below(found, 1 - apart / 2, CONFIDENCE), 0.01)
    assert failures / 60 <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 60)


def test_the_three_shares_of_an_index_belong_together() -> None:
    found = index(spectrum("zeros and outliers", 6, 12, 0), 1e-3)
    assert found.negative.low + found.zero.low + found.positive.low < 1
    assert found.negative.high + found.zero.high + found.positive.high > 1
    assert found.zero.estimate > 0.8 > 0.2 > found.positive.estimate + found.negative.estimate > 0
    assert found.negative.estimate + found.zero.estimate + found.positive.estimate == pytest.approx(1, abs=1e-6)


def test_eigenvalues_at_the_tolerance_itself_count_as_either() -> None:
    found = share_below(spectrum("zeros and outliers", 6, 12, 0), 0.0)
    assert found.low < 2 / 60 < 57 / 60 < found.high


# --- how it is run -----------------------------------------------------------------------------------------------


def test_products_are_counted_and_respected() -> None:
    calls = 0

    def matvec(v: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        assert v.shape == (SIZE,)
        return SPECTRA["uniform"] * v

    found = quadrature(matvec, SIZE, probes=3, most=7, seed=0)
    assert calls == found.products == 21 and len(found.probes) == 3


def test_a_clock_may_stop_it_between_probes() -> None:
    asked = iter([False, True])
    found = quadrature(diagonal(SPECTRA["uniform"]), SIZE, 50, 4, seed=0, stop=lambda: next(asked))
    assert len(found.probes) == 2 and found.products == 8
    assert len(quadrature(diagonal(SPECTRA["uniform"]), SIZE, 50, 4, seed=0, stop=lambda: True).probes) == 1


def test_stopped_early_is_the_beginning_of_the_whole() -> None:
    whole, part = (quadrature(diagonal(SPECTRA["uniform"]), SIZE, probes, 4, seed=0) for probes in (3, 2))
    for a, b in zip(whole.probes, part.probes, strict=False):
        torch.testing.assert_close(a.nodes, b.nodes)
        torch.testing.assert_close(a.weights, b.weights)


# --- density -----------------------------------------------------------------------------------------------------


def test_the_density_integrates_to_one_and_follows_the_true_one() -> None:
    values, width = SPECTRA["around zero"], 0.5
    points = torch.linspace(-6, 6, 241, dtype=F64)
    found = density(spectrum("around zero", 40, 25, 0), points, width)
    bells = torch.exp(-(((points[:, None] - values) / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi))
    assert float(torch.trapezoid(found.mean, points)) == pytest.approx(1, abs=1e-6)
    gap = (found.mean - bells.mean(1)).abs()
    assert bool((gap <= 4 * found.standard_error + 1e-6).all())
    assert float(gap.max()) < 0.05 * float(bells.mean(1).max())


def test_one_probe_gives_no_error_of_the_density() -> None:
    found = density(spectrum("uniform", 1, 5, 0), torch.zeros(2), 0.1)
    assert found.mean.shape == (2,) and bool(found.standard_error.isinf().all())


# --- dense matrices ----------------------------------------------------------------------------------------------


def test_exact_counts() -> None:
    q = torch.linalg.qr(torch.randn(7, 7, generator=rng(0), dtype=F64)).Q
    values = torch.tensor([-3.0, -1e-9, 0.0, 1e-9, 1e-2, 1.0, 2.0], dtype=F64)
    found = exact((q * values) @ q.T, tolerance=1e-4)
    assert (found.negative.count, found.zero.count, found.positive.count) == (1, 3, 3)
    assert (found.zero.low, found.zero.high, found.zero.confidence) == (3 / 7, 3 / 7, 1.0)


def test_exact_takes_float32_as_it_comes() -> None:
    found = exact(torch.diag(torch.tensor([-1.0, 0.0, 0.0, 3.0])) + 1e-6 * torch.randn(4, 4, generator=rng(1)), 1e-3)
    assert (found.negative.count, found.zero.count, found.positive.count) == (1, 2, 1)


def test_the_estimate_agrees_with_the_dense_count() -> None:
    q = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=rng(2), dtype=F64)).Q
    matrix = (q * SPECTRA["clusters"]) @ q.T
    counted, found = exact(matrix, 0.1), index(quadrature(lambda v: matrix @ v, SIZE, 20, 10, seed=1), 0.1, 0.99)
    assert holds(found.negative, counted.negative.estimate)
    assert holds(found.zero, counted.zero.estimate)
    assert holds(found.positive, counted.positive.estimate)


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["size", "probes", "most"])
def test_numbers_below_one_are_refused(named: str) -> None:
    numbers = {"size": 3, "probes": 2, "most": 2} | {named: 0}
    with pytest.raises(BadArgument, match=f"quadrature: `{named}`"):
        quadrature(lambda v: v, **numbers, seed=0)


def test_integers_are_refused() -> None:
    with pytest.raises(BadArgument, match="quadrature: `dtype`"):
        quadrature(lambda v: v, 3, 1, 1, seed=0, dtype=torch.int64)


def test_products_that_are_not_finite_are_refused() -> None:
    with pytest.raises(BadArgument, match="not finite"):
        quadrature(lambda v: v * math.inf, 3, 1, 1, seed=0)


@pytest.mark.parametrize("t", [math.nan, math.inf])
def test_a_point_that_is_not_finite_is_refused(t: float) -> None:
    with pytest.raises(BadArgument, match="share_below: `t`"):
        share_below(spectrum("uniform", 1, 2, 0), t)


@pytest.mark.parametrize("confidence", [0.0, 1.0, math.nan])
def test_a_confidence_outside_of_0_and_1_is_refused(confidence: float) -> None:
    with pytest.raises(BadArgument, match="share_below: `confidence`"):
        share_below(spectrum("uniform", 1, 2, 0), 0.0, confidence)
    with pytest.raises(BadArgument, match="index: `confidence`"):
        index(spectrum("uniform", 1, 2, 0), 0.1, confidence)


@pytest.mark.parametrize("tolerance", [-0.1, math.nan])
def test_a_negative_tolerance_is_refused(tolerance: float) -> None:
    with pytest.raises(BadArgument, match="index: `tolerance`"):
        index(spectrum("uniform", 1, 2, 0), tolerance)
    with pytest.raises(BadArgument, match="exact: `tolerance`"):
        exact(torch.eye(2), tolerance)


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf])
def test_a_width_that_is_not_positive_is_refused(width: float) -> None:
    with pytest.raises(BadArgument, match="density: `width`"):
        density(spectrum("uniform", 1, 2, 0), torch.zeros(1), width)


@pytest.mark.parametrize("matrix", [torch.ones(3), torch.ones(2, 3), torch.ones(0, 0)])
def test_matrices_that_are_not_square_are_refused(matrix: Tensor) -> None:
    with pytest.raises(BadArgument, match="exact: `matrix` must be square"):
        exact(matrix, 0.1)


@pytest.mark.parametrize("entry", [1.01, math.nan, math.inf])
def test_matrices_that_are_not_symmetric_or_not_finite_are_refused(entry: float) -> None:
    with pytest.raises(BadArgument, match="exact: `matrix` must be finite and symmetric"):
        exact(torch.tensor([[1.0, entry], [1.0, 1.0]]), 0.1)
