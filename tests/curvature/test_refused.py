"""What cannot be measured, each with its cause in words: no gradient of the loss, no loss twice, no loss at all."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.reference import Reference, apart, unit
from tests.curvature.test_measure import RAGGED, TOKENS, Pooled, X, Y, error_of, net, problem, with_function
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, Dataset, TensorDataset

from unstuck.curvature.measure import measurable
from unstuck.errors import BadArgument, NotMeasurable
from unstuck.problem import Problem

# --- gradients that are not those of the loss -------------------------------------------------------------------------


class Rounded(torch.autograd.Function):
    """Quarters, with the gradient passed straight through."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return (4 * x).round() / 4

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad


class Reversed(torch.autograd.Function):
    """The identity with the gradient reversed."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return -grad


class Detached(nn.Module):
    """An output beside a copy of itself that carries no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        return out * out.detach().tanh()


NO_GRADIENT_OF_THE_LOSS = {
    "straight through, in the middle": lambda: with_function(Rounded.apply, False),
    "straight through, as the output": lambda: with_function(Rounded.apply, True),
    "reversed": lambda: with_function(Reversed.apply, False),
    "detached": Detached,
}


@pytest.mark.parametrize("name", NO_GRADIENT_OF_THE_LOSS)
def test_a_gradient_that_is_not_that_of_the_loss_has_no_hessian(name: str) -> None:
    with pytest.raises(NotMeasurable):
        measurable(problem(NO_GRADIENT_OF_THE_LOSS[name]()))


def test_an_embedding_whose_gradients_are_scaled_by_frequency_has_no_hessian() -> None:
    with pytest.raises(NotMeasurable):
        measurable(problem(Pooled(scale_grad_by_freq=True), [(TOKENS, Y)]))


class Normed(nn.Linear):
    """A layer whose weight is divided by its largest singular value, exactly."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight / torch.linalg.matrix_norm(self.weight, 2), self.bias)


@pytest.mark.parametrize("iterations", [1, 50])
def test_spectral_norm_that_iterates_in_training_is_right_or_refused(iterations: int) -> None:
    """Its gradient takes the singular vectors for constants: right to first order only."""
    plain = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), Normed(5, 3))
    model = copy.deepcopy(plain)
    model[2] = nn.Linear(5, 3)
    model[2].load_state_dict(plain[2].state_dict())
    parametrizations.spectral_norm(model[2], n_power_iterations=iterations)
    try:
        hessian, _ = measurable(problem(model))
    except NotMeasurable:
        return
    v = unit(hessian.size)
    order = torch.cat([torch.arange(35), torch.arange(50, 53), torch.arange(35, 50)])  # its bias comes first
    exact = Reference(plain, F.cross_entropy, RAGGED).difference(v[order.argsort()])[order]
    assert apart(hessian(v), exact) < 2e-2


class Noisy(nn.Module):
    """Noise from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 3)
        self.generator = torch.Generator().manual_seed(0)

    def __deepcopy__(self, memo: dict) -> Noisy:
        other = Noisy()
        other.load_state_dict(self.state_dict())
        return other

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x + 0.3 * torch.randn(x.shape, generator=self.generator, dtype=x.dtype))


class Augmented(Dataset):
    """Samples with noise of their own each time they are read."""

    def __len__(self) -> int:
        return 13

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return X[i] + torch.randn(6, generator=GENERATOR), Y[i]


GENERATOR = torch.Generator().manual_seed(0)


def raising(x: Tensor) -> Tensor:
    raise KeyError("no such head")


def frozen() -> nn.Module:
    return net().requires_grad_(False)


CAUSES = {
    "a loss that is nan": (lambda: problem(net(), [(X * torch.nan, Y)]), None, r"not finite \(nan\)"),
    "a loss that is inf": (
        lambda: Problem(net(), lambda output, target: output.sum() * 0 + torch.inf, RAGGED), None, r"not finite \(inf\)"
    ),
    "nothing trainable": (lambda: problem(frozen()), None, "no trainable parameter"),
    "independent of the parameters": (
        lambda: Problem(net(), lambda output, target: target.float().mean(), RAGGED), None, "does not depend on any"
    ),
    "cut off from the parameters": (
        lambda: problem(with_function(Tensor.detach, True)), None, "does not depend on any"
    ),
    "noise of its own": (lambda: problem(Noisy()), None, "two evaluations of the loss differ .* no seed of ours"),
    "augmentation": (
        lambda: problem(net()), lambda: DataLoader(Augmented(), batch_size=5),
        "two evaluations .* `batches` gives other data",
    ),
    "shuffling that leaves others out": (
        lambda: problem(net()), lambda: DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True, drop_last=True),
        "two evaluations .* `batches` gives other data",
    ),
    "shuffling into other batches under batch norm": (
        lambda: problem(net(nn.BatchNorm1d(5))), lambda: DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True),
        "two evaluations .* `batches` gives other data",
    ),
    "a model that raises": (
        lambda: problem(with_function(raising, False)), None, "cannot be evaluated: KeyError: 'no such head'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSES)
def test_what_cannot_be_measured_is_said_with_its_cause(name: str) -> None:
    make, batches, words = CAUSES[name]
    with pytest.raises(NotMeasurable, match=words):
        measurable(make(), batches() if batches else None)


def test_batches_that_can_be_run_through_once_only_are_refused_or_kept() -> None:
    model = net()
    try:
        hessian, _ = measurable(problem(model), (batch for batch in RAGGED), double=True)
    except BadArgument:
        return
    assert error_of(model, hessian) < 1e-6
