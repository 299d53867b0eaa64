"""Lanczos against dense eigendecompositions: laws of the projection, of blocks, and of the end of a space."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unstuck.errors import BadArgument
from unstuck.linalg.lanczos import Ritz, lanczos

F64 = torch.float64


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=F64)


def symmetric(values: Tensor, seed: int = 0) -> Tensor:
    q = torch.linalg.qr(normal(len(values), len(values), seed=seed)).Q
    matrix = (q * values) @ q.T
    return (matrix + matrix.T) / 2


def never(_: Ritz) -> bool:
    return False


def run(matrix: Tensor, start: Tensor, most: int) -> Ritz:
    return lanczos(lambda v: v @ matrix, start, never, most)


SPECTRA = {
    "normal": normal(40, seed=1),
    "uniform": torch.linspace(-1, 2, 40, dtype=F64),
    "decay": 0.5 ** torch.arange(40, dtype=F64),
    "low rank": torch.cat([torch.tensor([-2.0, 1.0, 5.0], dtype=F64), torch.zeros(37, dtype=F64)]),
    "multiple": torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=F64).repeat(10),
    "large": 1e9 * normal(40, seed=2),
    "small": 1e-9 * normal(40, seed=3),
}
STARTS = {
    "vector": normal(40, seed=4),
    "one row": normal(1, 40, seed=4),
    "three rows": normal(3, 40, seed=4),
    "a row twice": normal(2, 40, seed=4)[[0, 0, 1]],
    "dependent rows": torch.cat([normal(2, 40, seed=4), normal(2, 40, seed=4).sum(0, keepdim=True)]),
    "unlike lengths": normal(3, 40, seed=4) * torch.tensor([[1e-6], [1.0], [1e6]], dtype=F64),
}


@pytest.mark.parametrize("most", [3, 6, 12, 24])
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
def test_the_laws_of_a_projection(values: Tensor, start: Tensor, most: int) -> None:
    """Q orthonormal, T = Q A Qᵀ, residuals true, Ritz values inside, and an eigenvalue within reach of each."""
    matrix = symmetric(values)
    ritz, true, slack = run(matrix, start, most), torch.linalg.eigvalsh(matrix), 1e-13 * float(values.abs().max())
    m = len(ritz.basis)
    assert m == ritz.products <= most and ritz.size == 40
    assert float((ritz.basis @ ritz.basis.T - torch.eye(m, dtype=F64)).abs().max()) < 1e-13
    assert float((ritz.projection - ritz.basis @ matrix @ ritz.basis.T).abs().max()) < slack
    assert float(true[0]) - slack <= float(ritz.values[0]) and float(ritz.values[-1]) <= float(true[-1]) + slack
    vectors = ritz.vectors(*range(m))
    residuals = (vectors @ matrix - ritz.values[:, None] * vectors).norm(dim=1)
    assert float((ritz.residuals - residuals).abs().max()) < 30 * slack
    nearest = (ritz.values[:, None] - true).abs().amin(dim=1)
    assert bool((nearest <= ritz.residuals + slack).all())


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("name", ["normal", "uniform", "large", "small"])
def test_full_rank_reconstruction_is_exact(name: str, rows: int) -> None:
    matrix = symmetric(SPECTRA[name])
    ritz = run(matrix, normal(rows, 40, seed=5), 60)
    assert ritz.exhausted and ritz.products == 40
    torch.testing.assert_close(
        ritz.basis.T @ ritz.projection @ ritz.basis, matrix, rtol=0, atol=1e-13 * float(matrix.abs().max()) * 40
    )
    torch.testing.assert_close(
        ritz.values, torch.linalg.eigvalsh(matrix), rtol=0, atol=1e-13 * float(matrix.abs().max()) * 40
    )
    assert float(ritz.residuals.max()) == 0


def test_weights_are_those_of_gauss() -> None:
    values, start = SPECTRA["normal"], normal(40, seed=6)
    ritz = run(torch.diag(values), start, 4)
    measure = start.square() / start.square().sum()
    for degree in range(8):
        assert float(ritz.weights @ ritz.values**degree) == pytest.approx(float(measure @ values**degree), abs=1e-10)


def test_scale_is_a_lower_bound_on_the_norm() -> None:
    ritz = run(symmetric(SPECTRA["normal"]), STARTS["vector"], 8)
    norm = float(SPECTRA["normal"].abs().max())
    assert 0.8 * norm < ritz.scale <= norm * (1 + 1e-12)


def test_some_vectors_are_those_asked_for() -> None:
    ritz = run(symmetric(SPECTRA["normal"]), STARTS["vector"], 8)
    torch.testing.assert_close(ritz.vectors(-1, 0), ritz.vectors(*range(8))[[7, 0]])


def test_a_vector_and_a_single_row_are_the_same() -> None:
    matrix, seen = symmetric(SPECTRA["normal"]), set()

    def matvec(v: Tensor) -> Tensor:
        seen.add(tuple(v.shape))
        return v @ matrix

    one, row = (lanczos(matvec, start, never, 9) for start in (STARTS["vector"], STARTS["one row"]))
    assert seen == {(40,), (1, 40)}
    torch.testing.assert_close(one.projection, row.projection, rtol=0, atol=1e-13)
    torch.testing.assert_close(one.basis, row.basis, rtol=0, atol=1e-13)
    torch.testing.assert_close(one.leaves, row.leaves, rtol=0, atol=1e-13)


def test_the_length_of_the_start_does_not_matter() -> None:
    matrix = symmetric(SPECTRA["normal"])
    for factor in (1e-30, 1e30):
        torch.testing.assert_close(
            run(matrix, factor * STARTS["vector"], 9).values, run(matrix, STARTS["vector"], 9).values
        )


def test_no_ghosts_in_float32() -> None:
    """Without reorthogonalization the outlier would be there several times, long before 150 steps."""
    values = torch.cat([torch.linspace(0, 1, 299, dtype=F64), torch.tensor([10.0], dtype=F64)])
    matrix = symmetric(values).float()
    ritz = run(matrix, normal(300).float(), 150)
    assert not ritz.exhausted and ritz.products == 150
    assert int((ritz.values > 1.01).sum()) == 1
    assert float(ritz.values[-1]) == pytest.approx(10, rel=1e-6)
    wide = ritz.basis.double()
    assert float((wide @ wide.T - torch.eye(150, dtype=F64)).abs().max()) < 1e-6
    assert ritz.basis.dtype == torch.float32 and ritz.projection.dtype == F64


# --- blocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_blocks_converge_to_the_same_ends(rows: int) -> None:
    matrix = symmetric(SPECTRA["uniform"])
    plain, block = run(matrix, STARTS["vector"], 30), run(matrix, normal(rows, 40, seed=7), 35)
    assert block.block == rows and plain.block == 1
    assert float(block.values[0]) == pytest.approx(float(plain.values[0]), abs=1e-3)
    assert float(block.values[-1]) == pytest.approx(float(plain.values[-1]), abs=1e-3)


def test_blocks_see_multiplicities_up_to_their_width_and_plain_lanczos_none() -> None:
    matrix = symmetric(SPECTRA["multiple"])
    for rows in (1, 2, 3):
        ritz = run(matrix, normal(rows, 40, seed=8), 40)
        assert ritz.exhausted and ritz.products == 4 * rows
        expected = torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=F64).repeat_interleave(rows)
        torch.testing.assert_close(ritz.values, expected, rtol=0, atol=1e-12)


def test_more_rows_than_dimensions_are_all_of_the_space() -> None:
    matrix = symmetric(normal(5, seed=9))
    ritz = run(matrix, normal(8, 5, seed=10), 8)
    assert ritz.exhausted and ritz.products == 5
    torch.testing.assert_close(ritz.values, torch.linalg.eigvalsh(matrix))


@pytest.mark.parametrize("place", [0, 1])
def test_a_row_that_is_an_eigenvector_costs_one_product(place: int) -> None:
    """What leaves the space is then one row, wherever the eigenvector stood in the start."""
    matrix = symmetric(SPECTRA["normal"])
    rows = [torch.linalg.eigh(matrix).eigenvectors[:, 0], STARTS["vector"]]
    ritz = run(matrix, torch.stack([rows[place], rows[1 - place]]), 9)
    assert ritz.block == 1 and ritz.products == 9
    assert float(ritz.values[0]) == pytest.approx(float(SPECTRA["normal"].min()), rel=1e-12)
    assert float(ritz.residuals[0]) < 1e-12


# --- the end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_an_invariant_space_is_the_end(count: int, dtype: torch.dtype) -> None:
    matrix = symmetric(SPECTRA["normal"])
    values, vectors = torch.linalg.eigh(matrix)
    chosen = [0, 11, 25, 39][:count]
    ritz = run(matrix.to(dtype), vectors[:, chosen].sum(dim=1).to(dtype), 40)
    rounding = 100 * torch.finfo(dtype).eps
    if dtype == F64 or count == 1:  # in float32 the other eigenvectors may grow from rounding first
        assert ritz.exhausted and ritz.products == count
        torch.testing.assert_close(ritz.values, values[chosen], rtol=rounding, atol=rounding)
        assert float(ritz.residuals.max()) == 0


@pytest.mark.parametrize(("matrix", "value"), [(torch.zeros(6, 6), 0.0), (torch.eye(6), 1.0), (3 * torch.eye(1), 3.0)])
def test_multiples_of_the_identity_end_at_once(matrix: Tensor, value: float) -> None:
    for rows in (1, 2):
        ritz = run(matrix.double(), normal(rows, len(matrix)), 40)
        assert ritz.exhausted and ritz.products == min(rows, len(matrix))
        torch.testing.assert_close(ritz.values, torch.full_like(ritz.values, value), rtol=1e-14, atol=0)


def test_it_ends_when_enough() -> None:
    asked: list[int] = []

    def enough(ritz: Ritz) -> bool:
        asked.append(ritz.products)
        return ritz.products >= 5

    ritz = lanczos(lambda v: v * SPECTRA["uniform"], STARTS["vector"], enough, 40)
    assert asked == [1, 2, 3, 4, 5] and ritz.products == 5 and not ritz.exhausted


def counted(values: Tensor) -> tuple[Callable[[Tensor], Tensor], list[int]]:
    spent: list[int] = []

    def matvec(v: Tensor) -> Tensor:
        spent.append(v.numel() // len(values))
        return v * values

    return matvec, spent


@pytest.mark.parametrize("most", [1, 2, 5, 7, 100])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_most_is_respected(rows: int, most: int) -> None:
    """Also where it is no multiple of the rows, and where the rows alone are more."""
    matvec, spent = counted(SPECTRA["uniform"])
    ritz = lanczos(matvec, normal(rows, 40), never, most)
    assert sum(spent) == ritz.products <= most


def test_a_product_that_asks_for_gradients_leaves_no_graph() -> None:
    weight = SPECTRA["uniform"].clone().requires_grad_()
    ritz = lanczos(lambda v: v * weight, STARTS["vector"], never, 5)
    assert not ritz.basis.requires_grad


# --- extreme sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1e-30, 1e25])
def test_a_float32_start_of_any_length_will_do(factor: float) -> None:
    """Its square under- or overflows; its direction is as good as any."""
    values = SPECTRA["uniform"].float()
    one, other = (lanczos(lambda v: v * values, f * STARTS["vector"].float(), never, 9) for f in (1.0, factor))
    assert not other.exhausted
    torch.testing.assert_close(one.values, other.values, rtol=1e-5, atol=1e-5)


def test_a_tiny_operator_is_not_taken_for_an_invariant_space() -> None:
    """Squares of its products underflow in float32; vanishing gradients bring such Hessians."""
    values = SPECTRA["uniform"].float()
    one, tiny = (lanczos(lambda v, f=f: v * values * f, STARTS["vector"].float(), never, 9) for f in (1.0, 1e-25))
    assert not tiny.exhausted
    torch.testing.assert_close(tiny.values, one.values * 1e-25, rtol=1e-4, atol=1e-30)


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, -1])
def test_no_products_are_refused(most: int) -> None:
    with pytest.raises(BadArgument, match="lanczos: `most`"):
        run(torch.eye(3), torch.ones(3), most)


@pytest.mark.parametrize(
    "start",
    [
        torch.zeros(3),
        torch.tensor([1.0, math.nan, 0.0]),
        torch.tensor([1.0, math.inf, 0.0]),
        torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]),
    ],
    ids=["zero", "nan", "inf", "a zero row"],
)
def test_a_start_without_direction_is_refused(start: Tensor) -> None:
    with pytest.raises(BadArgument, match="lanczos: `start`"):
        run(torch.eye(3), start, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_products_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(BadArgument, match="not finite"):
        lanczos(lambda v: v * value, torch.ones(3), never, 3)
