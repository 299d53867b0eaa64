"""The ladder: which way of making products is taken for which model, and that it is right."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.reference import Reference, apart, blobs, unit
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from unstuck.curvature.measure import measurable
from unstuck.curvature.product import DIFFERENCES, REVERSE
from unstuck.problem import Problem

X, Y = blobs(13, 6)
RAGGED = list(zip(X.split(8), Y.split(8), strict=True))


def error_of(model: nn.Module, hessian, loss=F.cross_entropy, batches=RAGGED) -> float:
    """How far the product is from central differences in float64."""
    v = unit(hessian.size)
    return apart(hessian(v), Reference(model, loss, batches).difference(v, 1e-7))


def problem(model: nn.Module, batches=RAGGED) -> Problem:
    return Problem(model, nn.CrossEntropyLoss(), batches)


def net(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 5), *between, nn.Tanh(), nn.Linear(5, 3))


# --- models that need no second way -----------------------------------------------------------------------------------


class Checkpointed(nn.Module):
    """A body whose activations are computed again in the backward pass."""

    def __init__(self, reentrant: bool, body: nn.Module) -> None:
        super().__init__()
        self.before, self.body, self.head, self.reentrant = nn.Linear(6, 5), body, nn.Linear(5, 3), reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, self.before(x), use_reentrant=self.reentrant))


class Attentive(nn.Module):
    """Fused attention over six tokens of one number each."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.body, self.head, self.causal = nn.Linear(1, 12), nn.Linear(4, 3), causal

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.body(x.unsqueeze(2)).unflatten(2, (3, 1, 4)).permute(2, 0, 3, 1, 4)
        return self.head(F.scaled_dot_product_attention(q, k, v, is_causal=self.causal).mean((1, 2)))


def compiled_inside() -> nn.Module:
    model = net(nn.LayerNorm(5))
    model[0] = torch.compile(model[0], backend="eager")
    model[2].compile(backend="eager")
    return model


RIGHT_AT_ONCE = {
    "layer norm": lambda: net(nn.LayerNorm(5)),
    "batch norm": lambda: net(nn.BatchNorm1d(5)),
    "dropout": lambda: net(nn.Dropout(0.4)),
    "attention": lambda: Attentive(False),
    "causal attention": lambda: Attentive(True),
    "encoder": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 2)), nn.TransformerEncoderLayer(2, 1, 5, 0.2, batch_first=True), nn.Flatten(),
        nn.Linear(6, 3),
    ),
    "checkpointed": lambda: Checkpointed(False, nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Dropout(0.3))),
    "compiled": lambda: torch.compile(net(nn.LayerNorm(5)), backend="eager"),
    "compiled with aot_eager": lambda: torch.compile(net(), backend="aot_eager"),
    "compiled inside": compiled_inside,
    "data parallel": lambda: nn.DataParallel(net()),
    "compiled and parallel": lambda: torch.compile(nn.DataParallel(net()), backend="eager"),
}


@pytest.mark.parametrize("name", RIGHT_AT_ONCE)
@pytest.mark.parametrize("double", [False, True])
def test_models_with_second_derivatives_take_the_cached_graph(name: str, double: bool) -> None:
    torch.manual_seed(3)
    model = RIGHT_AT_ONCE[name]()
    plain = copy.deepcopy(getattr(model, "_orig_mod", model))
    if "compiled" in name:
        model(X)  # so that there is compiled code to be left aside
        plain = plain.module if isinstance(plain, nn.DataParallel) else plain
        plain = nn.Sequential(*(getattr(part, "_orig_mod", part) for part in plain))
    hessian, checks = measurable(problem(model), double=double)
    assert hessian.way == REVERSE and hessian.rung == "cached graph" and len(checks) == 1
    assert error_of(plain, hessian) < (1e-6 if double else 1e-5)
    assert checks[0].symmetry < 1e-6 and checks[0].agreement < 1e-6 and checks[0].rounding < 1e-5 and not checks[0].why


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_nets_have_second_derivatives_in_float32(kind: type[nn.RNNBase]) -> None:
    body = kind(2, 4, batch_first=True)
    model = nn.Sequential(nn.Unflatten(1, (3, 2)), Steps(body), nn.Linear(12, 3))
    hessian, _ = measurable(problem(model))
    assert hessian.rung == "cached graph" and error_of(model, hessian) < 1e-5


class Steps(nn.Module):
    """What a recurrent net says at each step, side by side."""

    def __init__(self, body: nn.RNNBase) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)[0].flatten(1)


def test_layer_and_batch_norm_are_right_where_forward_over_reverse_is_wrong() -> None:
    for layer in (nn.LayerNorm(5), nn.BatchNorm1d(5)):
        model = net(layer)
        data = [(X, Y)]
        hessian, _ = measurable(problem(model, data), double=True)
        assert error_of(model, hessian, batches=data) < 1e-6
        v, exact = unit(hessian.size), Reference(model, F.cross_entropy, data).hessian()
        assert apart(hessian(v), exact @ v) < 1e-12
        assert apart(forward_over_reverse(model.double(), X.double(), Y), exact) > 1e-2


def forward_over_reverse(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """torch.func.hessian of the same loss, [n, n]."""
    shapes = [(name, p.shape, p.numel()) for name, p in model.named_parameters()]

    def loss(theta: Tensor) -> Tensor:
        parts = theta.split([count for _, _, count in shapes])
        values = {name: part.reshape(shape) for (name, shape, _), part in zip(shapes, parts, strict=True)}
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        return F.cross_entropy(torch.func.functional_call(model, {**values, **buffers}, (x,)), y)

    return torch.func.hessian(loss)(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))


# --- functions whose second derivative is missing or wrong ------------------------------------------------------------


class Cube(torch.autograd.Function):
    """x³; its backward says that it cannot be differentiated, which `autograd.grad(…, inputs)` does not hear."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class DetachedCube(Cube):
    """x³; its backward can be differentiated, and is then silently wrong."""

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0].detach() ** 2 * grad


class SingleCube(DetachedCube):
    """The same as a kernel that knows float32 only."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise RuntimeError("expected scalar type Float")
        return DetachedCube.forward(ctx, x)


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def with_function(function, last: bool) -> nn.Sequential:
    """The function in the middle, or as the output."""
    parts = [nn.Linear(6, 5), nn.Linear(5, 3)]
    parts.insert(2 if last else 1, Apply(function))
    return nn.Sequential(*parts)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("function", [Cube, DetachedCube])
def test_a_missing_or_wrong_second_derivative_drops_to_differences(function, double: bool, last: bool) -> None:
    model = with_function(function.apply, last)
    hessian, checks = measurable(problem(model), double=double)
    assert hessian.way == DIFFERENCES and [check.why == "" for check in checks] == [False, True]
    assert hessian.rung == checks[-1].way == f"differences in float{64 if double else 32}"
    assert error_of(model, hessian) < (1e-6 if double else 1e-3)
    assert checks[-1].step > 0 and checks[-1].symmetry < 1e-4


@pytest.mark.parametrize("last", [False, True])
def test_a_model_that_runs_in_float32_only_is_held_against_differences_there(last: bool) -> None:
    model = with_function(SingleCube.apply, last)
    hessian, _ = measurable(problem(model))
    assert hessian.rung == "differences in float32"
    assert error_of(with_function_of(model, DetachedCube.apply), hessian) < 1e-3


def with_function_of(model: nn.Module, function) -> nn.Module:
    other = copy.deepcopy(model)
    for part in other.modules():
        if isinstance(part, Apply):
            part.function = function
    return other


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("norm", [nn.Tanh, lambda: nn.BatchNorm1d(5)], ids=["plain", "batch norm"])
def test_reentrant_checkpoints_take_differences(norm) -> None:
    model = Checkpointed(True, nn.Sequential(nn.Linear(5, 5), norm(), nn.Dropout(0.3)))
    hessian, checks = measurable(problem(model), double=True)
    assert hessian.rung == "differences in float64" and "use_reentrant=True" in checks[0].why
    assert error_of(model, hessian) < 1e-6


def test_checkpoints_do_not_move_buffers_when_they_compute_again() -> None:
    model = Checkpointed(False, nn.Sequential(nn.BatchNorm1d(5), nn.Tanh()))
    hessian, _ = measurable(problem(model), double=True)
    before = {name: buffer.clone() for name, buffer in hessian.model.named_buffers()}
    hessian.slopes(), hessian(unit(hessian.size))
    assert all(torch.equal(buffer, before[name]) for name, buffer in hessian.model.named_buffers())


def test_spectral_norm_that_iterates_when_it_computes_again_repeats() -> None:
    model = Checkpointed(False, parametrizations.spectral_norm(nn.Linear(5, 5), n_power_iterations=1)).eval()
    hessian, _ = measurable(problem(model), double=True)
    assert error_of(model, hessian) < 1e-6


class Pooled(nn.Module):
    """The mean over tokens of their embeddings' tanh."""

    def __init__(self, **settings) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4, **settings), nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens).tanh().mean(1))


TOKENS = torch.randint(0, 7, (13, 5), generator=torch.Generator().manual_seed(5))


def test_the_row_of_the_padding_is_a_constant() -> None:
    model, data = Pooled(padding_idx=0), [(TOKENS, Y)]
    with torch.no_grad():
        model.embed.weight[0] = 0.5
    hessian, checks = measurable(problem(model, data))
    assert hessian.rung == "cached graph", checks[0].why
    v = unit(hessian.size)
    v[:4] = 0.0
    assert apart(hessian(v), Reference(model, F.cross_entropy, data).difference(v)) < 1e-5
    assert not hessian(v)[:4].any() and not hessian(torch.eye(hessian.size)[:4]).any()


def test_sparse_gradients_take_differences_at_the_least() -> None:
    data = [(TOKENS, Y)]
    model = Pooled(sparse=True)
    hessian, _ = measurable(problem(model, data), double=True)
    assert error_of(model, hessian, batches=data) < 1e-6


class FlatAt(nn.Module):
    """Convolution, ReLU and max-pooling twice; `function` keeps second derivatives from passing."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.a, self.b, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.a, self.b):
            x = F.max_pool2d(F.relu(conv(x)), 2)
        return self.head(self.function(x.flatten(1)))


def test_differences_across_kinks_are_taken_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 1, 8, 8, generator=generator), torch.randint(0, 4, (64,), generator=generator)
    model, data = FlatAt(Cube.apply), list(zip(x.split(32), y.split(32), strict=True))
    hessian, checks = measurable(problem(model, data))
    assert hessian.rung == "differences in float64"
    assert [check.why == "" for check in checks] == [False, False, True]
    assert "no two steps" in checks[1].why or "u·Hv" in checks[1].why
    assert error_of(model, hessian, batches=data) < 1e-4


class Halved(nn.Module):
    """Half precision that the model itself asks for."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.body(x).to(x.dtype)


def test_half_precision_inside_the_model_is_seen_as_rounding() -> None:
    hessian, checks = measurable(problem(Halved(net(nn.LayerNorm(5)))))
    error = error_of(hessian.model.double(), hessian)
    assert error < 1e-3 or (checks[-1].rounding < 1e-2 and error < 4 * checks[-1].rounding)


class Strict(nn.Linear):
    """A layer that insists on float32."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32, "float32 only"
        return super().forward(x)


def test_a_model_that_refuses_float64_in_its_own_way_is_measured_in_float32() -> None:
    model = nn.Sequential(Strict(6, 5), nn.Tanh(), nn.Linear(5, 3))
    hessian, checks = measurable(problem(model))
    assert hessian.rung == "cached graph" and checks[0].symmetry < 1e-6
    plain = nn.Sequential(nn.Linear(6, 5), *model[1:])
    plain[0].load_state_dict(model[0].state_dict())
    assert error_of(plain, hessian) < 1e-5
