"""Critical points against closed forms: surfaces of two variables, quadratics, linear autoencoders and networks."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unstuck.curvature.found import CRITICAL, FLAT, RAN_OUT, Found
from unstuck.curvature.product import Hessian
from unstuck.curvature.search import _next_radius, search, search_from
from unstuck.curvature.starts import starts
from unstuck.errors import BadArgument, NotMeasurable
from unstuck.problem import Problem, state_of


class Surface(nn.Module):
    """A function of the parameters w [n] alone; the batch only has to be there."""

    def __init__(self, function, w: Tensor) -> None:
        super().__init__()
        self.function, self.w = function, nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.w) + 0 * x.sum()


def surface(function, size: int = 2, w: Tensor | None = None) -> Problem:
    model = Surface(function, torch.full((size,), 0.3, dtype=torch.float64) if w is None else w.double())
    batch = (torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    return Problem(model, lambda output, target: output, [batch])


def found(function, *start: float, **options) -> Found:
    return search(surface(function, len(start)), torch.tensor(start, dtype=torch.float64), **options)


def quadratic(values, linear: Tensor):
    values = torch.as_tensor(values, dtype=torch.float64)
    return lambda w: (values * w.square()).sum() / 2 - linear @ w


@pytest.mark.parametrize(("values", "index"), [((3.0, 1.0, 0.5), 0), ((3.0, -1.0, 0.5), 1), ((-3.0, -1.0, -0.5), 3)])
@pytest.mark.parametrize("dense", [True, False])
def test_a_quadratic_takes_one_step(values, index: int, dense: bool) -> None:
    linear = torch.tensor([10.0, -4.0, 3.0], dtype=torch.float64)
    solution = linear / torch.tensor(values)
    case = surface(quadratic(values, linear), 3)
    point = search(case, solution + torch.tensor([0.5, -0.7, 0.6]), dense=dense)
    assert point.outcome == CRITICAL and point.steps == 1 and point.index == index
    assert torch.allclose(point.parameters, solution, atol=1e-9)
    assert point.loss == pytest.approx(-float(linear @ solution) / 2)
    assert torch.allclose(point.eigenvalues, torch.tensor(sorted(values)).double(), atol=1e-9)


def test_a_quadratic_far_off_takes_a_few_steps_of_growing_length() -> None:
    point = found(quadratic([3.0, -1.0], torch.tensor([300.0, 100.0]).double()), 0.0, 0.0)
    assert point.outcome == CRITICAL and point.steps < 10
    assert torch.allclose(point.parameters, torch.tensor([100.0, -100.0]).double())


def test_a_singular_quadratic_leaves_the_kernel_as_it_is() -> None:
    point = found(quadratic([2.0, -1.0, 0.0], torch.tensor([2.0, 1.0, 0.0]).double()), 5.0, 5.0, 5.0)
    assert point.outcome == CRITICAL and point.index == 1
    assert torch.allclose(point.parameters, torch.tensor([1.0, -1.0, 5.0]).double(), atol=1e-9)


def test_the_saddle_of_a_product() -> None:
    """(1 − w₁w₂)² has the saddle 0, with eigenvalues ±2."""
    point = found(lambda w: (1 - w[0] * w[1]) ** 2, 0.1, 0.25)
    assert point.outcome == CRITICAL and point.index == 1 and point.share == 0.5
    assert point.loss == pytest.approx(1.0) and float(point.parameters.norm()) < 1e-8
    assert torch.allclose(point.eigenvalues, torch.tensor([-2.0, 2.0]).double())


def test_the_valley_of_a_product() -> None:
    """… and the minima w₁w₂ = 1, with eigenvalues 0 and 2(w₁² + w₂²)."""
    point = found(lambda w: (1 - w[0] * w[1]) ** 2, 1.5, 0.9)
    assert point.outcome == CRITICAL and point.index == 0 and point.loss == pytest.approx(0.0, abs=1e-15)
    assert torch.allclose(
        point.eigenvalues, torch.tensor([0.0, 2 * float(point.parameters.square().sum())]).double(), atol=1e-6
    )


@pytest.mark.parametrize(("start", "index", "loss"), [
    ((0.4, -0.3), 2, 2.0), ((0.4, 3.0), 1, 0.0), ((3.3, 0.2), 1, 0.0), ((3.4, 2.8), 0, -2.0)
])  # fmt: skip
def test_maxima_saddles_and_minima_alike(start, index: int, loss: float) -> None:
    point = found(lambda w: w.cos().sum(), *start)
    assert (point.outcome, point.index) == (CRITICAL, index)
    assert point.loss == pytest.approx(loss, abs=1e-12)


def test_a_monkey_saddle_is_degenerate() -> None:
    """x³ − 3xy²: H vanishes with g, every step halves the way."""
    point = found(lambda w: w[0] ** 3 - 3 * w[0] * w[1] ** 2, 0.7, 0.4, tolerance=1e-12)
    assert point.outcome == CRITICAL and point.loss == pytest.approx(0.0, abs=1e-16)
    assert float(point.eigenvalues.abs().max()) < 1e-5
    assert point.squares[5] == pytest.approx(point.squares[4] / 16, rel=1e-3)


@pytest.mark.parametrize(
    ("function", "start", "gradient"),
    [
        (lambda w: w[0] + w[1] ** 2, (0.3, 2.0), 1.0),  # the gradient (1, 0) lies in the kernel once w₂ = 0
        (lambda w: w[0] ** 3 / 3 + w[0] + w[1] ** 2, (1.0, -1.0), 1.0),  # ‖g‖² has its minimum at 0, and H g = 0 there
    ],
)
def test_a_minimum_of_the_gradient_is_no_critical_point(function, start, gradient: float) -> None:
    point = found(function, *start)
    assert point.outcome == FLAT and point.relative > 0.9
    assert point.flatness < 1e-2 and point.gradient == pytest.approx(gradient, rel=1e-3)


@pytest.mark.parametrize(("kept", "promised", "radius"), [
    (0.6, 1.0, 2.5), (0.3, 1.0, 1.0), (0.05, 1.0, 0.5), (1e-16, 0.0, 2.5)
])  # fmt: skip
def test_the_radius_follows_what_was_kept_of_the_promise(kept: float, promised: float, radius: float) -> None:
    """The last: a step that promises less than rounding, and lowers the gradient nevertheless."""
    assert _next_radius(1.0, 1.0, 1.0, kept, promised) == radius
    assert _next_radius(1.0, 0.3, 0.3, kept, promised) == 0.3  # where a part of the step was taken


def test_out_of_steps_is_said() -> None:
    point = found(lambda w: (1 - w[0] * w[1]) ** 2, 9.0, 4.0, most_steps=1)
    assert point.outcome == RAN_OUT and point.steps == 1 and point.gradient > 1e-8


def test_a_critical_start_stays() -> None:
    point = found(lambda w: (1 - w[0] * w[1]) ** 2, 0.0, 0.0)
    assert (point.outcome, point.steps, point.index) == (CRITICAL, 0, 1) and math.isnan(point.flatness)


# --- linear networks: every critical point is known -------------------------------------------------------------------

SPECTRUM = (6.1, 4.7, 3.2, 2.3, 1.3, 0.55)
"""Eigenvalues of the data's second moment; sums of three or more of them all differ."""


def autoencoder(*widths: int) -> Problem:
    """A linear network from 6 inputs back to them, squared error averaged over the 6 outputs."""
    generator = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(2, 6, 6, generator=generator, dtype=torch.float64))
    x = 6**0.5 * q[0] @ torch.diag(torch.tensor(SPECTRUM, dtype=torch.float64).sqrt()) @ q[1]
    ends = (6, *widths, 6)
    layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(ends)]
    return Problem(nn.Sequential(*layers).double(), nn.MSELoss(), [(x, x)])


def closed_form(hidden: int) -> dict[tuple[int, ...], tuple[float, int]]:
    """Loss and index of every kind of critical point of W₂W₁: a set S of at most `hidden` principal directions.

    W₂W₁ projects on S, so the loss is Σ_{j∉S} λ_j / 6 (Baldi & Hornik 1989). In the coordinates of the eigenvectors,
    and up to an invertible change of the hidden units, W₂ = [U_S 0], W₁ = W₂ᵀ. For a change (a, b) of these, j ∉ S and
    a hidden unit k the loss changes in second order by

        λ_s a² + λ_j b² − 2 λ_j a b       where k carries s ∈ S: one negative direction if λ_j > λ_s, else none
        − 2 λ_j a b                       where k carries nothing: one

    and by squares elsewhere. Index: the pairs (s, j) with λ_j > λ_s, and (hidden − |S|)(6 − |S|).
    """
    table = {}
    for size in range(hidden + 1):
        for chosen in itertools.combinations(range(6), size):
            rest = [j for j in range(6) if j not in chosen]
            swaps = sum(SPECTRUM[j] > SPECTRUM[s] for j in rest for s in chosen)
            loss = sum(SPECTRUM[j] for j in rest) / 6
            table[chosen] = (loss, swaps + (hidden - size) * (6 - size))
    return table


def drawn(size: int, scale: float, seed: int) -> Tensor:
    return scale * torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_critical_points_of_a_linear_autoencoder() -> None:
    """As in Frye et al. 2019: at least 20 kinds of the 42, each with its loss and index."""
    hessian, table = Hessian(autoencoder(3), double=True), closed_form(3)
    points = [
        search_from(hessian, drawn(hessian.size, scale, seed)) for scale in (0.2, 0.4, 0.7, 1.0) for seed in range(16)
    ]
    critical = [point for point in points if point.outcome == CRITICAL]
    kinds = set()
    for point in critical:
        chosen, (loss, index) = min(table.items(), key=lambda item: abs(item[1][0] - point.loss))
        assert point.loss == pytest.approx(loss, abs=1e-8) and point.index == index, chosen
        kinds.add(chosen)
    assert len(critical) >= 58 and len(kinds) >= 20
    assert {len(chosen) for chosen in kinds} == {0, 1, 2, 3}


def test_products_alone_find_the_same_points() -> None:
    hessian, table = Hessian(autoencoder(3), double=True), closed_form(3)
    for seed in range(2):
        start = drawn(hessian.size, 0.4, seed)
        dense, sparse = (search_from(hessian, start, dense=way) for way in (True, False))
        assert dense.outcome == sparse.outcome == CRITICAL
        assert (sparse.loss, sparse.index) == (pytest.approx(dense.loss, abs=1e-8), dense.index)
        assert (pytest.approx(sparse.loss, abs=1e-8), sparse.index) in table.values()


def test_a_deeper_linear_network_has_no_bad_minimum() -> None:
    """Kawaguchi 2016: a minimum is global; any other critical point is a saddle, with a negative eigenvalue where the
    hidden layers' product has full rank. Losses are those of projections."""
    case = autoencoder(3, 3)
    hessian, levels = Hessian(case, double=True), sorted({loss for loss, _ in closed_form(3).values()})
    critical = [p for seed in range(8) if (p := search_from(hessian, drawn(hessian.size, 0.6, seed), 150)).outcome
                == CRITICAL]  # fmt: skip
    assert len(critical) >= 6
    for point in critical:
        level = min(levels, key=lambda value: abs(value - point.loss))
        assert point.loss == pytest.approx(level, abs=1e-7)
        middle = point.parameters[18:27].reshape(3, 3)
        if level != levels[0] and float(torch.linalg.svdvals(middle)[-1]) > 1e-2:
            assert point.index > 0


# --- what is recorded, where it begins --------------------------------------------------------------------------------


def test_the_squared_gradient_only_falls_and_costs_are_counted() -> None:
    hessian = Hessian(autoencoder(3), double=True)
    point = search_from(hessian, drawn(hessian.size, 0.4, 1))
    assert all(after < before for before, after in itertools.pairwise(point.squares))
    assert point.gradient == pytest.approx(math.sqrt(point.squares[-1]))
    assert point.products == hessian.size * (point.steps + 1) + 1
    assert point.gradients >= 2 * point.steps + 1


def test_the_problem_is_left_as_it_was() -> None:
    case = autoencoder(3)
    before = state_of(case.twin(last=True))
    point = search(case, seed=1, most_steps=20)
    assert all(torch.equal(before[name], value) for name, value in state_of(case.twin(last=True)).items())
    assert torch.equal(point.parameters, search(case, starts(case, 1, seed=1)[0], most_steps=20).parameters)


def test_the_spectrum_of_many_parameters_is_estimated() -> None:
    values = torch.ones(2001, dtype=torch.float64)
    values[::2] = -2.0
    point = search(surface(quadratic(values, values), 2001), 1 + 0.001 * drawn(2001, 1.0, 0))
    assert point.outcome == CRITICAL and point.index is None is point.eigenvalues
    assert point.shares.negative.low < 1001 / 2001 < point.shares.negative.high and abs(point.share - 0.5) < 0.05
    assert point.kind == "saddle" and point.ends == (pytest.approx(-2.0), pytest.approx(1.0))
    assert point.scale == pytest.approx(2.0) and point.products < 20


def test_many_parameters_without_negative_curvature_are_not_called_a_minimum() -> None:
    bowl = surface(quadratic(torch.ones(2001), torch.ones(2001).double()), 2001)
    point = search(bowl, 1 + 0.001 * drawn(2001, 1.0, 0))
    assert point.outcome == CRITICAL and point.kind == "undecided" and point.ends[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("values", "kind"),
    [((3.0, -1.0), "saddle"), ((3.0, -1.0, 0.0), "saddle"), ((3.0, 1.0), "minimum"), ((-3.0, -1.0), "maximum"),
     ((3.0, 1.0, 0.0), "degenerate"), ((-1.0, 0.0), "degenerate"), ((0.0, 0.0), "degenerate")],
)  # fmt: skip
def test_the_kind_follows_the_signs(values, kind: str) -> None:
    size = len(values)
    point = search(surface(quadratic(values, torch.zeros(size).double()), size), torch.full((size,), 0.1))
    assert (point.outcome, point.kind) == (CRITICAL, kind)


# --- descent on the squared gradient, for comparison ------------------------------------------------------------------


def test_a_step_of_descent_goes_as_far_as_the_linear_model_says() -> None:
    """For g = Λw: w ← w − α Λ²w, with α = w·Λ⁴w / w·Λ⁶w."""
    values, w = torch.tensor([3.0, -1.0, 0.5]).double(), torch.tensor([0.4, 0.3, -0.2]).double()
    point = search(surface(quadratic(values, 0 * w), 3), w, most_steps=1, method="descent")
    alpha = float(w @ (values**4 * w) / (w @ (values**6 * w)))
    assert torch.allclose(point.parameters, w - alpha * values**2 * w, atol=1e-12)
    assert point.gradients == 3 and point.products == 2 + 3 + 1  # the step, the spectrum, H g


def test_descent_finds_saddles_and_maxima_too() -> None:
    for start, index in (((0.4, -0.3), 2), ((0.4, 3.0), 1), ((3.4, 2.8), 0)):
        point = found(lambda w: w.cos().sum(), *start, method="descent")
        assert (point.outcome, point.index, point.loss) == (CRITICAL, index, pytest.approx(2.0 * (index - 1)))


def test_descent_suffers_from_the_condition_and_newton_does_not() -> None:
    case = surface(quadratic((3.0, -1.0, 0.3), torch.zeros(3).double()), 3)
    newton, descent = (search(case, torch.ones(3), 2000, method=way) for way in ("newton-mr", "descent"))
    assert newton.outcome == descent.outcome == CRITICAL and newton.index == descent.index == 1
    assert all(after < before for before, after in itertools.pairwise(descent.squares))
    assert descent.products + descent.gradients > 50 * (newton.products + newton.gradients)


def test_a_clock_may_end_a_search() -> None:
    hessian, asked = Hessian(autoencoder(3), double=True), []
    point = search_from(hessian, drawn(hessian.size, 0.4, 1), stop=lambda: len(asked) == 3 or asked.append(None))
    assert point.steps == 3 and point.outcome == RAN_OUT


def test_starts_lie_between_the_known_states_and_around() -> None:
    case = surface(lambda w: w.square().sum(), 3, torch.tensor([1.0, 1.0, 1.0]))
    between = {"w": torch.tensor([2.0, 2.0, 2.0]).double()}
    case = replace(case, last={"w": torch.tensor([5.0, 5.0, 5.0]).double()},
                   loop=replace(case.loop, snapshots=((3, between),)))  # fmt: skip
    some = starts(case, 400)
    assert some.shape == (400, 3) and some.dtype == torch.float64
    assert torch.equal(some[:7], starts(case, 7)) and not torch.equal(some[:7], starts(case, 7, seed=1))
    assert 2.0 < float(some.mean()) < 3.5
    spread = some.std(dim=1)
    assert float(spread.min()) < 0.4 and 5.0 < float(spread.max()) < 45.0


def test_starts_leave_zero() -> None:
    assert float(starts(surface(lambda w: w.square().sum(), 4, torch.zeros(4)), 1).norm()) > 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"start": torch.zeros(3)}, "`start` must be a finite vector of the 2"),
        ({"start": torch.tensor([0.0, math.inf])}, "`start` must be a finite vector"),
        ({"most_steps": 0}, "`most_steps` must be at least 1"),
        ({"tolerance": 0.0}, "`tolerance` must be above 0"),
        ({"tolerance": math.nan}, "`tolerance` must be above 0"),
        ({"method": "adam"}, "`method` must be one of newton-mr, descent, got 'adam'"),
    ],
)
def test_bad_input_is_named(options, says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        search(surface(lambda w: w.square().sum()), **options)


def test_too_many_parameters_for_the_whole_hessian() -> None:
    case = surface(lambda w: w.square().sum(), 2001, torch.ones(2001))
    with pytest.raises(BadArgument, match="`dense` must be False above 2000"):
        search(case, torch.ones(2001), dense=True)


def test_no_start_at_all() -> None:
    with pytest.raises(BadArgument, match="`count` must be at least 1"):
        starts(surface(lambda w: w.sum()), 0)


def test_a_loss_that_is_not_finite_at_the_start() -> None:
    with pytest.raises(NotMeasurable, match="not finite"):
        search(surface(lambda w: w.log().sum(), 2, torch.ones(2)), torch.zeros(2))
