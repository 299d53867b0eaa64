"""Surfaces against the model alone in float64, closed forms, and NumPy."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.networks import CASES
from tests.small import clouds, mlp, trained, written
from torch import nn

import unstuck
from unstuck.capture.assemble import assemble
from unstuck.curvature.flat import Flat
from unstuck.curvature.product import Hessian
from unstuck.errors import BadArgument, NotMeasurable
from unstuck.probes import affine
from unstuck.probes.directions import coordinates, filter_normalised, orthonormal, principal, states
from unstuck.probes.plane import Plane
from unstuck.probes.surface import SIZES, grid, measure, refined, surface
from unstuck.probes.views import View, along_curvature, along_path, along_random, half_way
from unstuck.problem import Problem, load_state, state_of
from unstuck.sandbox import reseed

POINTS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.3, 0.7], [-0.9, 0.4]], dtype=torch.float64)


ALONE = ("lstm", "gru", "transformer")
"""torch has no rule for stacking the first two; in a stack of the third attention drops other weights."""


def directions(model: nn.Module, seed: int = 0) -> torch.Tensor:
    """Two directions in which all parameters move, biases too."""
    flat = Flat(model)
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(2, flat.size, generator=generator, dtype=torch.float64).to(flat.dtype)


def alone(problem: Problem, rows: torch.Tensor, points: torch.Tensor) -> list[float]:
    """The mean loss at each point: the model by itself, a fresh copy each time, weighed by samples."""
    found, data = [], Hessian(problem).data
    for point in points:
        total = 0.0
        for name, weight, batch in zip(data.names, data.weights, data.batches, strict=True):
            model = problem.twin(last=True)
            flat = Flat(model)
            flat.write(flat.values() + point.to(rows) @ rows)
            reseed(name)
            with torch.no_grad():
                total += weight * float(problem.value(model, batch).mean())
        found.append(total)
    return found


def problem_of(case, double: bool = True) -> Problem:
    torch.manual_seed(0)
    model, data = case.make(), []
    for _ in range(3):
        x, y = case.inputs(), case.target()
        if double:
            x, y = (t.double() if t.is_floating_point() else t for t in (x, y))
        data.append((x, y))
    model = model.double() if double else model
    return replace(Problem(model, case.loss, data), last=state_of(model))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_point_equals_the_model_alone(case):
    problem = problem_of(case)
    rows = directions(problem.model)
    plane = Plane(problem, rows)
    assert plane.how == ("one by one" if case.name in ALONE else "stacked"), plane.why
    assert plane(POINTS).tolist() == pytest.approx(alone(problem, rows, POINTS), rel=1e-10)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32_is_wrong_by_rounding_only(case):
    single, double = problem_of(case, double=False), problem_of(case)
    load_state(double.model, {n: t.double() if t.is_floating_point() else t for n, t in state_of(single.model).items()})
    double = replace(double, data=tuple(
        tuple(t.double() if t.is_floating_point() else t for t in batch) for batch in single.data
    ), held_out=(), last={})  # fmt: skip
    single = replace(single, held_out=())
    rows = directions(single.model)
    found = Plane(single, rows)(POINTS)
    if "dropout" in str(case) or "transformer" in str(case):  # masks are drawn otherwise in float64
        expected = alone(single, rows, POINTS)
    else:
        expected = alone(double, rows.double(), POINTS)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_dropout_drops_the_same_units_at_all_points():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.4), nn.Linear(6, 20), nn.ReLU(), nn.Dropout(0.4), nn.Linear(20, 3)).double()
    data = [(torch.randn(9, 6).double(), torch.arange(9) % 3) for _ in range(4)]
    problem = Problem(model, nn.CrossEntropyLoss(), data)
    rows = directions(model)
    plane = Plane(problem, rows)
    assert plane.how == "stacked"
    assert plane(POINTS).tolist() == pytest.approx(alone(problem, rows, POINTS), rel=1e-10)
    assert plane(torch.zeros(3, 2)).unique().numel() == 1


def test_a_transformer_without_dropout_is_stacked():
    case = next(case for case in CASES if case.name == "transformer")
    problem = problem_of(case)
    for module in problem.model.modules():
        if isinstance(module, (nn.Dropout, nn.MultiheadAttention)):
            module.p = module.dropout = 0.0
    rows = directions(problem.model)
    plane = Plane(problem, rows)
    assert plane.how == "stacked", plane.why
    assert plane(POINTS).tolist() == pytest.approx(alone(problem, rows, POINTS), rel=1e-10)


def taped(double: bool = True) -> Problem:
    """A recorded script: two modules, a loose parameter, a loss by hand."""
    torch.manual_seed(0)
    kind = torch.float64 if double else torch.float32

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.norm, self.head = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.head(torch.tanh(self.norm(self.body(x)))).squeeze(1)

    model = Net().to(kind)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    x = torch.randn(96, 5, dtype=kind)
    y = x.prod(1) + 1
    with unstuck.watch(model, optimizer, share=10.0) as watch:
        for step in range(24):
            some = slice(16 * (step % 6), 16 * (step % 6) + 16)
            optimizer.zero_grad()
            loss = ((model.scale * model(x[some]) - y[some]) ** 2).mean()
            loss.backward()
            optimizer.step()
    return assemble(watch._watch).problem


def test_a_recorded_script():
    problem = taped()
    rows = directions(problem.model)
    plane = Plane(problem, rows)
    assert plane.why == ""
    assert plane(POINTS).tolist() == pytest.approx(alone(problem, rows, POINTS), rel=1e-10)


class Branching(nn.Module):
    """Looks at its own values: vmap refuses it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.layer(x))
        return y if float(y.sum()) > 0 else 2 * y


class Sly(nn.Module):
    """Gives another value inside of vmap, without an error."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * (1.5 if affine.differs(self.layer.weight) else 1.0)


@pytest.mark.parametrize(("make", "why"), [(Branching, "RuntimeError"), (Sly, "a stack of points gave")])
def test_what_cannot_be_stacked_is_taken_one_by_one(make, why):
    torch.manual_seed(0)
    model = make().double()
    data = [(torch.randn(8, 4).double(), torch.arange(8) % 3) for _ in range(3)]
    problem = Problem(model, nn.CrossEntropyLoss(), data)
    rows = directions(model)
    found = surface(problem, *rows, resolution=3)
    assert found.how == "one by one"
    assert why in found.why
    points = grid(View("", "", "", rows, (-1, 1), (-1, 1)), 3)
    assert [z for row in found.z for z in row] == pytest.approx(alone(problem, rows, points), rel=1e-12)


def test_rows_and_columns():
    """z[j][i] stands at x[i], y[j]; a reach of its own for each axis; a sum over ragged batches."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1).double()
    data = [(torch.randn(n, 3).double(), torch.randn(n, 1).double()) for n in (8, 8, 5, 8)]
    problem = Problem(model, nn.MSELoss(reduction="sum"), data)
    rows = directions(model)
    found = surface(problem, *rows, resolution=4, reach=((-2.0, 1.0), (0.0, 3.0)))
    assert (found.x, found.y) == ((-2.0, -1.0, 0.0, 1.0), (0.0, 1.0, 2.0, 3.0))
    assert found.z[2][1] == pytest.approx(alone(problem, rows, torch.tensor([[-1.0, 2.0]]))[0])
    assert found.samples == 29


def test_a_linear_regression_is_a_paraboloid():
    """z = (L + g·v + vᵀHv / 2) with H = 2 XᵀX / n."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 6).double(), torch.randn(40, 1).double()
    model = nn.Linear(6, 1, bias=False).double()
    problem = Problem(model, nn.MSELoss(), [(x, y)])
    rows = directions(model)
    found = surface(problem, *rows, resolution=7, reach=2.0)
    weight = model.weight.detach()
    rest = x @ weight.T - y
    g, h = 2 * (x.T @ rest)[:, 0] / 40, 2 * x.T @ x / 40
    a, b, z = (torch.tensor(numbers, dtype=torch.float64) for numbers in (found.x, found.y, found.z))
    v = a[None, :, None] * rows[0] + b[:, None, None] * rows[1]
    expected = rest.square().mean() + v @ g + torch.einsum("jin,nm,jim->ji", v, h, v) / 2
    assert torch.allclose(z, expected, rtol=1e-12)


def test_a_loss_that_overflows_is_told():
    model = nn.Linear(2, 1, bias=False)
    problem = Problem(model, nn.MSELoss(), [(torch.full((4, 2), 1e10), torch.zeros(4, 1))])
    found = surface(problem, torch.tensor([1e12, 0.0]), torch.tensor([0.0, 1.0]), resolution=3)
    assert math.isinf(found.z[1][0]) and math.isfinite(found.z[1][1])


@pytest.mark.parametrize("size", [2**20, 1], ids=["vmap's own products", "point by point"])
def test_each_kernel_gives_the_same(monkeypatch, size):
    monkeypatch.setattr(affine, "LARGE", size)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv1d(4, 6, 3, groups=2, bias=False), nn.Flatten(),
        nn.Linear(18, 8, bias=False), nn.Tanh(), nn.Linear(8, 3),
    )  # fmt: skip
    data = [(torch.randn(16, 2, 9), torch.arange(16) % 3) for _ in range(2)]
    problem = Problem(model, nn.CrossEntropyLoss(), data)
    rows = directions(model)
    plane = Plane(problem, rows)
    assert plane.how == "stacked"
    assert plane(POINTS).tolist() == pytest.approx(alone(problem, rows, POINTS), rel=1e-5)


@pytest.mark.parametrize("kernel", [False, True])
def test_onednn_and_torch_multiply_alike(monkeypatch, kernel):
    monkeypatch.setattr(affine, "LARGE", 1)
    monkeypatch.setattr(affine, "onednn_pays", lambda: kernel and torch.backends.mkldnn.is_available())
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))
    data = [(torch.randn(5, 7, 6), torch.randint(0, 3, (5, 7)))]
    problem = Problem(model, lambda out, y: F.cross_entropy(out.mT, y), data)
    rows = directions(model)
    assert Plane(problem, rows)(POINTS).tolist() == pytest.approx(alone(problem, rows, POINTS), rel=1e-5)


def test_the_first_layer_is_computed_three_times(monkeypatch):
    counted = []
    monkeypatch.setattr(affine.Affine, "_affine", _counting(affine.Affine._affine, counted))
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    problem = Problem(model, nn.CrossEntropyLoss(), [(torch.randn(9, 6), torch.arange(9) % 3)])
    plane = Plane(problem, directions(model))
    plane.together, counted[:] = 2, []
    plane(torch.rand(11, 2))
    assert sum(counted) == 3


def _counting(method, counted):
    def counting(self, layer, weights, bias):
        def call(*parts):
            counted.append(1)
            return layer(*parts)

        return method(self, call, weights, bias)

    return counting


# --- refinement -------------------------------------------------------------------------------------------------------


def small_plane() -> tuple[Plane, View]:
    torch.manual_seed(0)
    model = mlp(6, 3, 5).double()
    problem = Problem(model, nn.CrossEntropyLoss(), [(torch.randn(20, 6).double(), torch.arange(20) % 3)])
    rows = directions(model)
    return Plane(problem, rows), View("", "", "", rows, (-1.0, 2.0), (-0.7, 0.3))


def test_refining_gives_the_grid_itself_and_no_point_twice():
    plane, view = small_plane()
    seen = []

    def loss(points):
        seen.extend(map(tuple, points.tolist()))
        return plane(points)

    found = refined(loss, view, math.inf, SIZES[:3])
    assert torch.allclose(found, plane(grid(view, 33)).view(33, 33), rtol=1e-13)
    assert len(seen) == len(set(seen)) == 33**2


def test_refining_ends_with_the_time():
    _, view = small_plane()

    def loss(points):
        time.sleep(1e-4 * len(points))
        return points.sum(1)

    assert len(refined(loss, view, time.perf_counter())) == 9
    began = time.perf_counter()
    found = refined(loss, view, began + 0.08)
    assert len(found) == 17
    assert torch.equal(found, grid(view, 17).sum(1).view(17, 17))


# --- directions -------------------------------------------------------------------------------------------------------


def test_filters_are_as_long_as_the_parameters_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        model[0].weight[1] = 0
    flat = Flat(model)
    one, two = filter_normalised(flat, torch.Generator().manual_seed(0), 2)
    for direction in (one, two):
        for parameter, part in zip(flat.parameters, flat.split(direction), strict=True):
            if parameter.dim() > 1:
                assert torch.allclose(part.flatten(1).norm(dim=1), parameter.flatten(1).norm(dim=1), rtol=1e-5)
            else:
                assert not part.any()
    assert abs(float(one @ two)) < 0.5 * float(one.norm() * two.norm())


def test_padding_rows_stay():
    flat = Flat(nn.Embedding(5, 4, padding_idx=2))
    with torch.no_grad():
        flat.parameters[0].fill_(1.0)
    (found,) = filter_normalised(flat, torch.Generator().manual_seed(0), 1)
    assert not found.view(5, 4)[2].any()
    assert found.view(5, 4)[3].any()


def test_scaling_a_layer_and_the_next_one_back_leaves_the_surface():
    torch.manual_seed(0)
    x, y = clouds(64)
    model = nn.Sequential(nn.Linear(24, 16, bias=False), nn.ReLU(), nn.Linear(16, 4, bias=False)).double()
    plain = Problem(model, nn.CrossEntropyLoss(), [(x.double(), y)])
    first = along_random(plain)
    with torch.no_grad():
        model[0].weight *= 8
        model[2].weight /= 8
    scaled = Problem(model, nn.CrossEntropyLoss(), [(x.double(), y)])
    second = along_random(scaled)
    assert torch.allclose(Plane(plain, first.directions)(POINTS), Plane(scaled, second.directions)(POINTS), rtol=1e-6)


def test_principal_components_are_numpys():
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(9, 50, generator=generator, dtype=torch.float64) * torch.linspace(3, 0.1, 50)
    found, shares = principal(known)
    centred = known.numpy() - known.numpy().mean(0)
    _, sizes, components = np.linalg.svd(centred, full_matrices=False)
    assert np.allclose(np.abs(np.sum(found.numpy() * components[:2], axis=1)), 1)
    assert shares == pytest.approx(tuple(sizes[:2] ** 2 / (sizes**2).sum()))
    assert (centred[0] @ found.numpy().T <= 0).all()


def test_coordinates_are_least_squares():
    generator = torch.Generator().manual_seed(0)
    plane, vectors = (torch.randn(k, 30, generator=generator, dtype=torch.float64) for k in (2, 5))
    expected = np.linalg.lstsq(plane.numpy().T, vectors.numpy().T, rcond=None)[0].T
    assert np.allclose(coordinates(plane, vectors).numpy(), expected)


def test_states_without_repetitions():
    x, y = clouds(64)
    problem = trained(written(mlp(), x, y), 16)
    state = problem.last
    again = replace(problem, loop=replace(problem.loop, snapshots=(*problem.loop.snapshots, (16, state), (17, state))))
    flat = Flat(problem.twin())
    assert len(states(problem, flat)) == 9
    assert torch.equal(states(again, flat), states(problem, flat))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: filter_normalised(Flat(nn.PReLU()), torch.Generator(), 2), "filters have no length"),
        (lambda: principal(torch.eye(2)), "2 states"),
        (lambda: principal(torch.linspace(0, 1, 5)[:, None] * torch.rand(1, 8)), "straight line"),
        (lambda: orthonormal([torch.zeros(3), torch.ones(3), 2 * torch.ones(3)]), "do not span"),
        (lambda: coordinates(torch.ones(2, 4), torch.ones(1, 4)), "are one"),
        (lambda: coordinates(torch.zeros(2, 4), torch.ones(1, 4)), "are one"),
    ],
)
def test_no_plane(call, said):
    with pytest.raises(NotMeasurable, match=said):
        call()


def test_orthonormal_takes_the_first_that_differ():
    found, places = orthonormal([torch.zeros(3), torch.tensor([2.0, 0, 0]), torch.tensor([3.0, 1e-5, 0]),
                                 torch.tensor([1.0, 1.0, 0])])  # fmt: skip
    assert places == (1, 3)
    assert torch.allclose(found, torch.eye(3)[:2])


def test_half_way_of_the_loss():
    for slope, bend in ((2.0, 3.0), (-2.0, 0.0), (0.0, -5.0), (1e-9, 1e-9)):
        length = half_way(slope, bend, 4.0)
        assert abs(slope) * length + abs(bend) * length**2 / 2 == pytest.approx(2.0)
    assert half_way(0.0, 0.0, 4.0) == math.inf


# --- the three slices -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clouded() -> Problem:
    x, y = clouds(400)
    return trained(written(mlp(), x, y), 60)


def test_three_slices_through_a_training(clouded):
    found = measure(clouded, budget_s=4.0)
    assert found.missing == ()
    assert [s.name for s in found.slices] == ["random", "path", "curvature"]
    for s in found.slices:
        assert s.how == "stacked"
        assert s.resolution in SIZES
        assert len(s.path) == 9
        assert s.path[-1] == pytest.approx((0.0, 0.0), abs=1e-9)
        assert all(map(math.isfinite, (z for row in s.z for z in row)))
    random, path, _ = found.slices
    assert random.share < 0.3 < path.share <= 1 + 1e-6
    assert path.share == pytest.approx(sum(principal(states(clouded, Flat(clouded.twin())))[1]), rel=1e-4)
    assert path.path[0][0] < 0
    assert path.x[0] < min(p[0] for p in path.path) and path.x[-1] > max(p[0] for p in path.path)


def test_the_path_goes_down(clouded):
    """The first state's own loss is the plane's where the path starts, as far as the plane holds it."""
    view = along_path(clouded)
    plane = Plane(clouded, view.directions)
    ends = coordinates(view.directions, states(clouded, plane.flat) - plane.start)[[0, -1]]
    start, end = plane(ends).tolist()
    assert start > 2 * end
    assert end == pytest.approx(float(Plane(clouded, view.directions)(torch.zeros(1, 2))), rel=1e-4)


def test_the_curvature_view_of_a_quadratic():
    """Eigenvectors of XᵀX known: the gradient along one of them, the steepest is the next candidate."""
    generator = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(64, 5, generator=generator, dtype=torch.float64))[0]
    x = 8 * x * torch.tensor([3.0, 1.0, 0.5, 0.4, 0.3])
    model = nn.Linear(5, 1, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()
        model.weight[0, 1] = 2.0
    problem = Problem(model, nn.MSELoss(), [(x, torch.zeros(64, 1).double())])
    view = along_curvature(problem)
    assert abs(view.directions).round(decimals=4).tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert view.x_name == "the gradient" and "steepest" in view.y_name and "18" in view.y_name
    # L = 4, slope 4 and bend 2 along the first; bend 18 along the second: 9 α² = 2
    assert view.x == pytest.approx((-(6**0.5 - 2), 6**0.5 - 2))
    assert view.y == pytest.approx((-(2 / 9) ** 0.5, (2 / 9) ** 0.5), rel=1e-3)


def test_at_a_saddle_the_two_ends_of_the_spectrum():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2).double())

        def forward(self, x):
            return x * self.w[0] * self.w[1]

    one = torch.ones(4, 1).double()
    view = along_curvature(Problem(Product(), nn.MSELoss(), [(one, one)]))
    assert "negative" in view.x_name and "-2" in view.x_name
    assert "steepest" in view.y_name


def test_reasons_for_what_cannot_be_had():
    x, y = clouds(64)

    class Rough(nn.Linear):
        """Other random numbers each time: no function."""

        def forward(self, x):
            return super().forward(x) * torch.rand(1, generator=torch.Generator().manual_seed(torch.seed() % 1000))

    torch.manual_seed(0)
    found = measure(Problem(Rough(24, 4), nn.CrossEntropyLoss(), [(x, y)]), budget_s=1.0)
    assert found.slices == ()
    for said, why in zip(found.missing, ("random: two", "path: 1 states", "curvature: two"), strict=True):
        assert said.startswith(why)


def test_too_dear_is_said():
    class Slow(nn.Linear):
        def forward(self, x):
            time.sleep(0.05)
            return super().forward(x)

    problem = Problem(Slow(4, 3), nn.CrossEntropyLoss(), [(torch.randn(64, 4), torch.arange(64) % 3)])
    with pytest.raises(NotMeasurable, match="cannot be had"):
        measure(problem, budget_s=1.0)


def test_bad_arguments():
    problem = Problem(nn.Linear(4, 3), nn.CrossEntropyLoss(), [(torch.randn(8, 4), torch.arange(8) % 3)])
    one, two = torch.eye(15)[:2]
    with pytest.raises(BadArgument, match="`resolution`"):
        surface(problem, one, two, resolution=1)
    with pytest.raises(BadArgument, match="must be vectors"):
        surface(problem, one, two[:3])
    with pytest.raises(BadArgument, match="two rows over the 15"):
        surface(problem, one[:3], two[:3])
    with pytest.raises(NotMeasurable, match="are one"):
        surface(problem, one, -one, resolution=3)


def test_fewer_samples_where_asked():
    data = [(torch.randn(10, 4), torch.arange(10) % 3) for _ in range(8)]
    problem = Problem(nn.Linear(4, 3), nn.CrossEntropyLoss(), data)
    one, two = torch.eye(15)[:2]
    assert surface(problem, one, two, resolution=2).samples == 80
    assert surface(problem, one, two, resolution=2, samples=15).samples == 20


def test_the_problem_is_left_as_it_was():
    """Parameters, buffers, random streams; BatchNorm and dropout in it."""
    problem = problem_of(CASES[1], double=False)
    before, own, last = torch.get_rng_state(), state_of(problem.model), {n: t.clone() for n, t in problem.last.items()}
    rows = directions(problem.model)
    surface(problem, *rows, resolution=3)
    measure(problem, budget_s=1.0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(t, own[n]) for n, t in state_of(problem.model).items())
    assert all(torch.equal(t, last[n]) for n, t in problem.last.items())
