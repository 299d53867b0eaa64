"""Products with the Hessian against closed forms, dense Hessians and each other; and nothing of the user's moves."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.curvature.reference import Reference, apart, blobs, unit
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from unstuck.curvature.measure import measurable
from unstuck.curvature.product import DIFFERENCES, Hessian
from unstuck.errors import NotMeasurable
from unstuck.problem import Problem

X, Y = blobs(13, 6)
RAGGED = list(zip(X.split(5), Y.split(5), strict=True))


def net(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 5), *between, nn.Tanh(), nn.Linear(5, 3))


def dense(hessian: Hessian) -> Tensor:
    return hessian(torch.eye(hessian.size, dtype=hessian.flat.dtype))


def problem(model: nn.Module, reduction: str = "mean", batches=RAGGED) -> Problem:
    return Problem(model, nn.CrossEntropyLoss(reduction=reduction), batches)


class Function(nn.Module):
    """A function of its parameters alone, whatever it is given."""

    def __init__(self, start: Tensor, value) -> None:
        super().__init__()
        self.theta, self.value = nn.Parameter(start), value

    def forward(self, x: Tensor) -> Tensor:
        return self.value(self.theta).expand(len(x))


def first_argument(output: Tensor, _: Tensor) -> Tensor:
    return output.mean()


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_the_saddle_of_the_lecture_has_eigenvalues_of_two_and_minus_two() -> None:
    model = Function(torch.zeros(2), lambda w: (1 - w[0] * w[1]) ** 2)
    hessian = Hessian(Problem(model, first_argument, [(torch.ones(1), torch.ones(1))]))
    assert torch.linalg.eigvalsh(dense(hessian)).tolist() == [-2.0, 2.0]
    assert hessian.slopes().norm == 0.0 and hessian.slopes().loss == 1.0


def test_a_quadratic_has_its_matrix() -> None:
    a = torch.randn(7, 7, dtype=torch.float64)
    a, b, start = a + a.T, torch.randn(7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    hessian = Hessian(Problem(Function(start, lambda w: w @ a @ w / 2 + b @ w), first_argument, RAGGED))
    assert torch.allclose(dense(hessian), a, atol=1e-13)
    assert torch.allclose(hessian.slopes().gradient, a @ start + b)
    assert Hessian(Problem(Function(start, lambda w: b @ w), first_argument, RAGGED))(b).tolist() == [0.0] * 7


def test_linear_regression_has_twice_the_second_moment() -> None:
    hessian = Hessian(Problem(nn.Linear(6, 1), nn.MSELoss(), [(X, torch.randn(13, 1))]), double=True)
    columns = torch.cat([X, torch.ones(13, 1)], 1).double()
    assert torch.allclose(dense(hessian), 2 * columns.T @ columns / 13, atol=1e-12)


def test_logistic_regression_weighs_by_the_variance_of_the_prediction() -> None:
    model, target = nn.Linear(6, 1, bias=False), (Y > 0).float().unsqueeze(1)
    data = list(zip(X.split(5), target.split(5), strict=True))
    hessian = Hessian(Problem(model, nn.BCEWithLogitsLoss(), data), double=True)
    p = (X.double() @ model.weight.detach().double().T).sigmoid()
    assert torch.allclose(dense(hessian), X.double().T @ (p * (1 - p) * X.double()) / 13, atol=1e-12)


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reduction", "scale"), [("mean", 1.0), ("sum", 5.0), ("none", 1.0)])
def test_ragged_batches_are_the_mean_over_samples(reduction: str, scale: float) -> None:
    model = net()
    whole = Reference(model, F.cross_entropy, [(X, Y)])
    hessian = Hessian(problem(model, reduction), double=True)
    slopes = hessian.slopes()
    assert slopes.loss == pytest.approx(scale * whole.value(whole.theta), rel=1e-12)
    assert torch.allclose(slopes.gradient, scale * whole.gradient(whole.theta), atol=1e-13)
    assert torch.allclose(dense(hessian), scale * whole.hessian(), atol=1e-12)


def test_rows_are_the_products_of_each() -> None:
    hessian = Hessian(problem(net()), double=True)
    rows = torch.randn(4, hessian.size, dtype=torch.float64)
    together = hessian(rows)
    assert together.shape == rows.shape and hessian.products == 4
    assert torch.allclose(together, torch.stack([hessian(row) for row in rows]), atol=1e-14) and hessian.products == 8
    assert torch.equal(hessian(rows.reshape(2, 2, -1)), together.reshape(2, 2, -1)) and hessian.seconds > 0


@pytest.mark.parametrize("batches", [RAGGED, DataLoader(TensorDataset(X, Y), batch_size=5)], ids=["list", "loader"])
def test_graphs_kept_partly_kept_and_made_anew_give_the_same(batches) -> None:
    rows = torch.randn(2, Hessian(problem(net())).size)
    kept = Hessian(problem(net(nn.Dropout(0.3))), batches)
    expected = kept(rows)
    assert kept.rung == "cached graph" and len(kept.graphs.kept) == 3
    some = Hessian(problem(net(nn.Dropout(0.3))), batches, memory=kept.graphs.held // 2)
    none = Hessian(problem(net(nn.Dropout(0.3))), batches, memory=0)
    for hessian, rung in ((some, "cached graph for 1 batches of 3"), (none, "recomputed")):
        assert torch.equal(hessian(rows), expected) and torch.equal(hessian(rows), expected)
        assert hessian.rung == rung
    kept.release()
    assert not kept.graphs.kept and torch.equal(kept(rows), expected)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_part_has_the_seeds_the_graphs_and_the_scale_of_the_whole(reduction: str) -> None:
    model = net(nn.Dropout(0.3))
    whole = Hessian(problem(model, reduction), double=True)
    v = unit(whole.size)
    expected = whole(v)
    parts = [whole.part([i]) for i in range(3)]
    graphs = dict(whole.graphs.kept)
    products = [part(v) for part in parts]
    assert dict(whole.graphs.kept) == graphs and [part.products for part in parts] == [1, 1, 1] and whole.products == 1
    shares = torch.tensor([5, 5, 3]) / 13
    assert apart(sum(s * p for s, p in zip(shares, products, strict=True)), expected) < 1e-7
    pair = whole.part([2, 0])
    assert pair.data.names == (2, 0) and pair.data.samples == 8
    assert apart(pair(v), (3 * products[2] + 5 * products[0]) / 8) < 1e-12


@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_curvature_of_each_batch_along_a_direction(reduction: str, memory: int | None) -> None:
    model = net(nn.Dropout(0.3))
    hessian = Hessian(problem(model, reduction), double=True, memory=memory)
    v = unit(hessian.size)
    expected = hessian(v)
    product, quotients = hessian.along(v)
    assert apart(product, expected) < 1e-12 and hessian.products == 2
    assert quotients.tolist() == pytest.approx([float(v @ hessian.part([i])(v)) for i in range(3)])
    assert float(v @ expected) == pytest.approx(float(quotients @ torch.tensor(hessian.data.shares).double()))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_loader_that_shuffles_is_right_or_refused_however_many_graphs_are_kept(shuffle: bool, share: float) -> None:
    model, loader = net(), DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=shuffle)
    sizing = Hessian(problem(model), RAGGED)
    sizing.slopes()
    expected = Reference(model, F.cross_entropy, [(X, Y)]).hessian() @ unit(sizing.size)
    try:
        hessian, _ = measurable(problem(model), loader, double=True, memory=int(2 * share * sizing.graphs.held))
    except NotMeasurable:
        assert shuffle
        return
    for _ in range(3):
        assert apart(hessian(unit(hessian.size)), expected) < 1e-9
        torch.rand(1)  # the next shuffle is another


# --- models -----------------------------------------------------------------------------------------------------------


def test_frozen_parameters_are_left_out() -> None:
    model = net()
    whole = dense(Hessian(problem(model), double=True))
    model[0].weight.requires_grad_(False)
    hessian = Hessian(problem(model), double=True)
    assert hessian.size == len(whole) - 30 and "0.weight" not in hessian.flat.names
    assert torch.allclose(dense(hessian), whole[30:, 30:], atol=1e-14)


class Shared(nn.Module):
    """Two layers that are one, and an output tied to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.b, self.head = self.a, nn.Linear(6, 6)
        self.head.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x).tanh()).tanh())


def test_shared_parameters_count_once() -> None:
    hessian = Hessian(problem(Shared()), double=True)
    assert hessian.size == 36 + 6 + 6
    assert torch.allclose(dense(hessian), Reference(hessian.model, F.cross_entropy, RAGGED).hessian(), atol=1e-13)


class TwoInputs(nn.Module):
    """Two inputs, and a layer that the loss never sees."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.unused, self.b = nn.Linear(6, 3), nn.Linear(2, 2), nn.Linear(4, 3)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.a(x).tanh() * self.b(z)


@pytest.mark.parametrize("way", ["reverse over reverse", DIFFERENCES])
def test_several_inputs_and_parameters_without_influence(way: str) -> None:
    data = [(x, torch.randn(len(x), 4), y) for x, y in RAGGED]
    hessian = Hessian(Problem(TwoInputs(), nn.CrossEntropyLoss(), data), double=True, way=way)
    expected = Reference(hessian.model, F.cross_entropy, data).hessian()
    found = dense(hessian)
    assert torch.allclose(found, expected, atol=1e-13 if way != DIFFERENCES else 1e-7)
    assert not found[21:27].any() and not found[:, 21:27].any()


def test_dropout_keeps_its_masks() -> None:
    model = net(nn.Dropout(0.5))
    hessian = Hessian(problem(model), double=True, memory=0)
    v = unit(hessian.size)
    assert torch.equal(hessian(v), hessian(v))
    assert torch.allclose(dense(hessian), Reference(model, F.cross_entropy, RAGGED).hessian(), atol=1e-13)
    losses = hessian.losses_at(v, [0.0])[0]
    assert hessian.slopes().loss == pytest.approx(float(5 * losses[0] + 5 * losses[1] + 3 * losses[2]) / 13)


@pytest.mark.parametrize("training", [True, False])
def test_batchnorm_is_the_mean_over_batches_in_the_mode_of_the_training(training: bool) -> None:
    model = net(nn.BatchNorm1d(5))
    model(3 * X + 1)
    model.train(training)
    found = dense(Hessian(problem(model), double=True))
    assert torch.allclose(found, Reference(model, F.cross_entropy, RAGGED).hessian(), atol=1e-12)
    whole = Reference(model, F.cross_entropy, [(X, Y)]).hessian()
    assert (apart(found, whole) > 1e-2) == training


def test_the_state_is_where_the_training_was_left_or_began() -> None:
    model = net()
    moved = {name: p + 0.3 for name, p in model.state_dict().items()}
    case = replace(problem(model), last=moved)
    ended = net()
    ended.load_state_dict(moved)
    for last, at in ((False, model), (True, ended)):
        v, expected = unit(53), Reference(at, F.cross_entropy, RAGGED).hessian()
        assert apart(Hessian(case, last=last, double=True)(v), expected @ v) < 1e-9


def test_autocast_of_the_training_is_left_out() -> None:
    case = problem(net())
    half = replace(case, loop=replace(case.loop, autocast=("cpu", torch.bfloat16)))
    v = unit(53).float()
    assert torch.equal(Hessian(half)(v), Hessian(case)(v))


# --- slopes, and the loss along a line --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["reverse over reverse", DIFFERENCES])
def test_the_loss_and_its_gradient_along_a_line(way: str) -> None:
    model = net(nn.BatchNorm1d(5), nn.Dropout(0.2))
    hessian, reference = Hessian(problem(model), double=True, way=way), Reference(model, F.cross_entropy, RAGGED)
    v, theta = unit(hessian.size), reference.theta
    table = hessian.losses_at(v, [-0.5, 0.0, 2.0])
    assert table.shape == (3, 3) and table.dtype == torch.float64
    values = table @ torch.tensor(hessian.data.weights, dtype=torch.float64)
    assert values.tolist() == pytest.approx([reference.value(theta + a * v) for a in (-0.5, 0.0, 2.0)], rel=1e-12)
    assert torch.allclose(hessian.gradient_at(v, 0.7), reference.gradient(theta + 0.7 * v), atol=1e-13)
    assert torch.allclose(hessian.difference(v, 1e-5), reference.difference(v), atol=1e-9)
    slopes = hessian.slopes()
    assert torch.allclose(slopes.gradient, reference.gradient(theta), atol=1e-13)
    assert slopes.loss == pytest.approx(reference.value(theta), rel=1e-12)
    assert torch.allclose(hessian(v), reference.hessian() @ v, atol=1e-7), "walking along the line moved the graphs"


@pytest.mark.parametrize("sizes", [(8, 8, 8, 8), (8, 8, 8, 2)], ids=["even", "ragged"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_noise_is_the_standard_error_of_the_gradient(sizes: tuple[int, ...], reduction: str) -> None:
    """A finite population, drawn from with replacement: E‖ĝ − ∇L‖² = s² tr Σ / N, s = 1 for a mean, n for a sum."""
    model, scale, rows = nn.Linear(6, 1).double(), 1 if reduction == "mean" else max(sizes), sum(sizes)
    x, y = torch.randn(50, 6, dtype=torch.float64), 2 + torch.randn(50, 1, dtype=torch.float64)
    columns = torch.cat([x, torch.ones(50, 1)], 1)
    each = 2 * (model(x).detach() - y) * columns
    variance = scale**2 * float(each.var(0, correction=0).sum()) / rows
    generator, squares, errors = torch.Generator().manual_seed(0), [], []
    case = Problem(model, nn.MSELoss(reduction=reduction), [(x, y)])
    for _ in range(250):
        drawn = torch.randint(0, 50, (rows,), generator=generator)
        slopes = Hessian(case, list(zip(x[drawn].split(sizes), y[drawn].split(sizes), strict=True))).slopes()
        squares.append(slopes.noise**2)
        errors.append(float((slopes.gradient - scale * each.mean(0)).norm()) ** 2)
    assert np.mean(errors) == pytest.approx(variance, rel=0.2)
    assert np.mean(squares) == pytest.approx(variance, rel=0.2)


def test_one_batch_tells_nothing_of_the_noise() -> None:
    assert np.isnan(Hessian(problem(net(), batches=[(X, Y)])).slopes().noise)


# --- nothing moves ----------------------------------------------------------------------------------------------------


def fingerprint(model: nn.Module) -> list:
    """Parameters, gradients, buffers, modes, and the three streams of random numbers."""
    tensors = [*model.parameters(), *(p.grad for p in model.parameters()), *model.buffers()]
    return [
        [None if t is None else t.detach().numpy().tobytes() for t in tensors], [m.training for m in model.modules()],
        random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist(), torch.is_grad_enabled(),
        sorted(model._buffers), sorted(model.state_dict()),
    ]  # fmt: skip


@pytest.mark.parametrize("batches", [RAGGED, DataLoader(TensorDataset(X, Y), batch_size=5)], ids=["list", "loader"])
def test_the_users_model_gradients_and_random_numbers_stay(batches) -> None:
    model = net(nn.BatchNorm1d(5), nn.Dropout(0.3))
    F.cross_entropy(model(X), Y).backward()
    case = problem(model)
    before = fingerprint(model)
    for hessian in (measurable(case, batches)[0], Hessian(case, batches, way=DIFFERENCES, memory=0)):
        v = unit(hessian.size).float()
        hessian(v), hessian.slopes(), hessian.losses_at(v, [0.1]), hessian.difference(v, 0.1), hessian.part([0])(v)
    assert fingerprint(model) == before


def test_random_numbers_of_python_and_numpy_are_seeded_too() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = net()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x * (1 + random.random()) + float(np.random.rand()))

    model = Noisy()
    hessian, _ = measurable(problem(model), double=True)
    v = unit(hessian.size)
    assert apart(hessian(v), Reference(model, F.cross_entropy, RAGGED).hessian() @ v) < 1e-9


def test_a_loss_that_is_not_finite_has_no_slopes() -> None:
    with pytest.raises(NotMeasurable, match=r"not finite \(nan\)"):
        Hessian(problem(net(), batches=[(X * torch.nan, Y)])).slopes()
