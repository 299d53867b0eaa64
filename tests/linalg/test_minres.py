"""Minimum-residual solutions against pseudo-inverses and least squares of numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unstuck.errors import BadArgument
from unstuck.linalg.minres import minres, pseudo_inverse


def symmetric(values, seed: int = 0) -> Tensor:
    """A matrix with these eigenvalues and random eigenvectors, float64."""
    values = torch.as_tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
    return (q * values) @ q.T


def vector(size: int, seed: int = 1) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spectra() -> dict[str, Tensor]:
    line = torch.linspace(1, 3, 30, dtype=torch.float64)
    spread = torch.logspace(-5, 0, 20, dtype=torch.float64)
    return {
        "definite": line,
        "indefinite": torch.cat([line, -line - 0.5]),
        "singular": torch.cat([line, -line[:9], torch.zeros(20, dtype=torch.float64)]),
        "nearly all kernel": torch.cat([line[:2], torch.zeros(30, dtype=torch.float64)]),
        "few distinct": torch.cat([torch.full((20,), 2.0), torch.full((20,), -1.0), torch.zeros(10)]).double(),
        "ill-conditioned": torch.cat([spread, -spread]),
        "ill-conditioned and singular": torch.cat([spread, -spread, torch.zeros(10, dtype=torch.float64)]),
    }


@pytest.mark.parametrize("name", spectra())
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_pseudo_inverse(name: str, seed: int) -> None:
    matrix, b = symmetric(spectra()[name], seed), vector(len(spectra()[name]), seed + 10)
    expected = torch.from_numpy(np.linalg.pinv(matrix.numpy(), rcond=1e-10, hermitian=True) @ b.numpy())
    solution = minres(lambda v: matrix @ v, b, tolerance=1e-12, cutoff=1e-10)
    assert torch.allclose(solution.x, expected, rtol=0, atol=1e-6 * float(expected.norm()))
    assert solution.residual == pytest.approx(float((matrix @ expected - b).norm()), abs=1e-8)
    assert solution.slope < 1e-8 and solution.products <= len(b) + 3


@pytest.mark.parametrize("seed", range(5))
def test_equals_numpy_least_squares_where_the_system_has_no_solution(seed: int) -> None:
    matrix, b = symmetric([3.0, 2.0, -1.0, -0.5, 0.0, 0.0, 0.0], seed), vector(7, seed)
    expected, *_ = np.linalg.lstsq(matrix.numpy(), b.numpy(), rcond=1e-10)
    for solution in (minres(lambda v: matrix @ v, b), pseudo_inverse(matrix, b)):
        assert np.allclose(solution.x.numpy(), expected, atol=1e-10)
        assert solution.relative == pytest.approx(np.linalg.norm(matrix.numpy() @ expected - b.numpy()) / b.norm())


def test_the_eigendecomposition_gives_the_same_figures() -> None:
    values = spectra()["singular"]
    matrix, b = symmetric(values), vector(len(values))
    dense, sparse = pseudo_inverse(matrix, b), minres(lambda v: matrix @ v, b, tolerance=1e-13)
    assert torch.allclose(dense.x, sparse.x, atol=1e-10)
    assert dense.residual == pytest.approx(sparse.residual) and dense.residual > 1
    assert dense.scale == pytest.approx(3.0) and sparse.scale == pytest.approx(3.0, rel=1e-3)


def test_stops_with_the_space_exhausted() -> None:
    values = spectra()["few distinct"]
    matrix, b = symmetric(values), vector(len(values))
    assert minres(lambda v: matrix @ v, b).products <= 6


def test_the_residual_is_the_smallest_in_the_krylov_space() -> None:
    matrix, b = symmetric(torch.linspace(-4, 5, 50, dtype=torch.float64)), vector(50)
    powers = [b]
    for _ in range(7):
        powers.append(matrix @ powers[-1])
    space, _ = np.linalg.qr(torch.stack(powers, 1).numpy())
    coefficients, *_ = np.linalg.lstsq(matrix.numpy() @ space, b.numpy(), rcond=None)
    smallest = np.linalg.norm(matrix.numpy() @ space @ coefficients - b.numpy())
    assert minres(lambda v: matrix @ v, b, most=8).residual == pytest.approx(smallest, rel=1e-8)


def test_stops_early_where_the_kernel_is_met_only_nearly() -> None:
    """The residual tends to the kernel's part of b long before the space is exhausted; the length stays least."""
    values = torch.cat([torch.linspace(1, 2, 300, dtype=torch.float64), torch.zeros(100, dtype=torch.float64)])
    b = vector(400)
    solution = minres(lambda v: values * v, b, tolerance=1e-8)
    assert solution.products < 80
    assert torch.allclose(solution.x, b / values.masked_fill(values == 0, torch.inf), atol=1e-6)


def test_a_right_side_in_the_kernel_gives_zero() -> None:
    matrix = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    for solution in (minres(lambda v: matrix @ v, matrix[1] + torch.tensor([0.0, 2.0]).double()),
                     pseudo_inverse(matrix, torch.tensor([0.0, 2.0]).double())):  # fmt: skip
        assert solution.relative == 1.0 and solution.slope == 0.0 and float(solution.x.norm()) == 0.0


@pytest.mark.parametrize("name", spectra())
@pytest.mark.parametrize("share", [0.9, 0.1, 1e-3])
def test_a_bounded_length_gives_the_least_residual_within_it(name: str, share: float) -> None:
    """Against (A² + μ)⁻¹ A b with μ found by bisection."""
    matrix, b = symmetric(spectra()[name]), vector(len(spectra()[name]))
    longest = share * float(pseudo_inverse(matrix, b).x.norm())
    low, high = 1e-30, 1e12
    for _ in range(60):
        middle = (low * high) ** 0.5
        x = torch.linalg.solve(matrix @ matrix + middle * torch.eye(len(b)).double(), matrix @ b)
        low, high = (middle, high) if float(x.norm()) > longest else (low, middle)
    for solution in (minres(lambda v: matrix @ v, b, longest=longest), pseudo_inverse(matrix, b, longest=longest)):
        assert float(solution.x.norm()) == pytest.approx(longest, rel=1e-6)
        assert solution.damping == pytest.approx(high, rel=1e-4)
        assert torch.allclose(solution.x, x, rtol=0, atol=1e-5 * longest)
        assert solution.slope < 1e-6


def test_a_bound_that_is_not_reached_changes_nothing() -> None:
    values = spectra()["singular"]
    matrix, b = symmetric(values), vector(len(values))
    free = minres(lambda v: matrix @ v, b)
    bound = minres(lambda v: matrix @ v, b, longest=1.01 * float(free.x.norm()))
    assert torch.equal(free.x, bound.x) and bound.damping == 0.0


def test_the_rest_is_what_the_product_leaves() -> None:
    values = spectra()["singular"]
    matrix, b = symmetric(values), vector(len(values))
    for solution in (minres(lambda v: matrix @ v, b), minres(lambda v: matrix @ v, b, longest=0.5),
                     pseudo_inverse(matrix, b), pseudo_inverse(matrix, b, longest=0.5)):  # fmt: skip
        assert torch.allclose(solution.rest, b - matrix @ solution.x, atol=1e-12)
        assert solution.residual == pytest.approx(float(solution.rest.norm()))


def test_zero_costs_nothing() -> None:
    solution = minres(lambda v: v, torch.zeros(4))
    assert solution.products == 0 and solution.relative == 0.0 and not solution.x.any()


def test_works_in_float32() -> None:
    values = spectra()["singular"]
    matrix, b = symmetric(values).float(), vector(len(values)).float()
    solution = minres(lambda v: matrix @ v, b, tolerance=1e-5, cutoff=1e-5)
    expected = torch.from_numpy(np.linalg.pinv(symmetric(values).numpy(), rcond=1e-8) @ b.double().numpy())
    assert solution.x.dtype == torch.float32
    assert torch.allclose(solution.x.double(), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: minres(lambda v: v, torch.ones(2, 2)), "minres: `right` must be a finite vector"),
        (lambda: minres(lambda v: v, torch.tensor([torch.nan, 1.0])), "1 values that are not finite"),
        (lambda: minres(lambda v: v, torch.ones(2), most=0), "`most` must be at least 1"),
        (lambda: minres(lambda v: v, torch.ones(2), longest=0), "minres: `longest` must be above 0"),
        (lambda: pseudo_inverse(torch.eye(2), torch.ones(2), longest=-1.0), "pseudo_inverse: `longest` must be"),
        (lambda: minres(lambda v: v / 0, torch.ones(2)), "product that is not finite"),
        (lambda: pseudo_inverse(torch.eye(3), torch.ones(2)), r"`matrix` must be \[2, 2\]"),
        (lambda: pseudo_inverse(torch.eye(0), torch.ones(0)), "pseudo_inverse: `right` must be a finite vector"),
    ],
)
def test_bad_input_is_named(call, says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        call()
