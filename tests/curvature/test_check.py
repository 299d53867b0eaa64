"""The self-check: what it says of right and of wrong products, and the small functions that it is made of."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.reference import blobs
from torch import Tensor, nn

from unstuck.curvature import check as module
from unstuck.curvature.check import STEPS, apart, check, directions, first_line, settled, symmetry
from unstuck.curvature.product import DIFFERENCES, Hessian
from unstuck.problem import Problem

X, Y = blobs(50, 6)
DTYPES = [torch.float64, torch.float32]


def hessian(*parts: nn.Module, double: bool = False, way: str = "reverse over reverse", batches=None) -> Hessian:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(6, 5), *parts, nn.Tanh(), nn.Linear(5, 3))
    return Hessian(Problem(model, nn.CrossEntropyLoss(), batches or [(X, Y)]), double=double, way=way)


# --- the whole check --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("double", [False, True])
def test_a_right_product_passes_with_figures(double: bool) -> None:
    found = check(hessian(double=double))
    assert found.way == "reverse over reverse" and found.why == ""
    assert found.symmetry < (1e-15 if double else 1e-7) and found.agreement < 1e-7 and found.step > 0
    assert found.rounding == 0.0 if double else 1e-9 < found.rounding < 1e-5


@pytest.mark.parametrize("double", [False, True])
def test_right_differences_pass_with_the_step_that_settled(double: bool) -> None:
    case = hessian(double=double, way=DIFFERENCES)
    found = check(case)
    assert found.way == f"differences in float{64 if double else 32}" and found.why == ""
    assert case.step == found.step and found.symmetry < (1e-7 if double else 1e-3)
    shares = STEPS[case.flat.dtype]
    assert any(found.step == pytest.approx(share * float(case.flat.values().norm())) for share in shares)


def test_the_check_spends_nothing_of_the_hessians_own() -> None:
    case = hessian(nn.Dropout(0.3))
    check(case)
    assert case.products == 0 and not case.graphs.kept


def test_the_check_is_made_on_a_few_rows_where_the_program_takes_fewer() -> None:
    seen = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        seen.append(len(output))
        return F.cross_entropy(output, target)

    model = nn.Linear(6, 3)
    case = Hessian(Problem(model, loss, [(X, Y)]))
    seen.clear()
    assert check(case).why == "" and set(seen) - {16, 32} == set()

    def sized(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.reshape(50, 3), target)

    assert check(Hessian(Problem(model, sized, [(X, Y)]))).agreement < 1e-6


class Wrong(torch.autograd.Function):
    """x³ with a second derivative of nothing."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0].detach() ** 2 * grad


class Missing(torch.autograd.Function):
    """x³ whose backward raises when it is to be differentiated."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise NotImplementedError("no second derivative\nof this kernel")
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class Apply(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x)


def test_a_wrong_product_is_told_in_words_and_figures() -> None:
    found = check(hessian(Apply(Wrong)))
    assert "differ by" in found.why and (found.agreement > 0.05 or found.symmetry > 5e-4)
    found = check(hessian(Apply(Missing)))
    assert found.why == "no second derivative (no second derivative)" and math.isnan(found.symmetry)
    assert check(hessian(Apply(Missing), way=DIFFERENCES)).why == ""


def test_the_symmetry_found_does_not_fade_with_the_number_of_parameters() -> None:
    """The same relative asymmetry is told from rounding at any size: 30 % must not pass for 5e-4."""
    for size in (50, 2000):
        generator = torch.Generator().manual_seed(0)
        skew = torch.randn(size, size, generator=generator, dtype=torch.float64)
        even, skew = skew + skew.T, skew - skew.T
        lopsided = even / even.norm() + 0.3 * skew / skew.norm()
        odd, _ = symmetry(lopsided.mv, size, torch.float64)
        assert odd > max(module.SYMMETRY.values()), size


# --- its parts --------------------------------------------------------------------------------------------------------


def test_symmetry_is_zero_for_a_symmetric_matrix_and_counts_two_products() -> None:
    a = torch.randn(9, 9, dtype=torch.float64)
    asked = []

    def product(v: Tensor) -> Tensor:
        asked.append(v)
        return (a + a.T) @ v

    odd, hv = symmetry(product, 9, torch.float64)
    assert odd < 1e-14 and len(asked) == 2 and torch.equal(hv, (a + a.T) @ asked[1])
    assert symmetry(lambda v: a @ v, 9, torch.float64)[0] > 1e-2
    assert symmetry(torch.zeros_like, 9, torch.float64)[0] == 0.0
    assert not symmetry(lambda v: v * torch.nan, 9, torch.float64)[0] <= 1.0, "what is no number is not symmetric"


@pytest.mark.parametrize("dtype", DTYPES)
def test_differences_of_a_smooth_gradient_settle_at_once(dtype: torch.dtype) -> None:
    a = torch.randn(9, 9)
    a = (a + a.T).to(dtype)
    v = directions(9, dtype)[0]
    asked = []

    def difference(v: Tensor, step: float) -> Tensor:
        asked.append(step)
        return a @ v * (1 + step**2)

    found, step = settled(difference, v, 3.0)
    assert apart(found, a @ v) < 1e-3 and asked == [3 * share for share in STEPS[dtype][:2]] and step == asked[-1]
    asked.clear()
    assert settled(difference, v, 3.0, a @ v)[1] == asked[0] and len(asked) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_differences_across_a_kink_settle_once_the_step_is_shorter_than_its_distance(dtype: torch.dtype) -> None:
    """A jump of one at distance d: a difference is off by 1/2h until h < d."""
    steps = STEPS[dtype]
    v = directions(4, dtype)[0]
    for d, expected in ((0.5 * steps[0], steps[2]), (0.0, math.nan)):

        def difference(v: Tensor, step: float, d: float = d) -> Tensor:
            return v + (torch.ones_like(v) / (2 * step) if step > d else 0)

        found, step = settled(difference, v, 1.0)
        assert step == pytest.approx(expected, nan_ok=True)
        assert math.isnan(step) or apart(found, v) < 1e-6


def test_differences_that_agree_with_each_other_but_not_with_what_is_expected_are_returned() -> None:
    v = directions(4, torch.float64)[0]
    found, step = settled(lambda v, step: 2 * v, v, 1.0, v)
    assert torch.equal(found, 2 * v) and step == STEPS[torch.float64][1]


def test_apart_is_relative_to_the_larger() -> None:
    one = torch.tensor([3.0, 4.0])
    assert apart(one, one) == 0.0 and apart(one, 0 * one) == 1.0 and apart(0 * one, one) == 1.0
    assert apart(one, 2 * one) == pytest.approx(0.5) and apart(0 * one, 0 * one) == 0.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_directions_are_of_length_one_and_always_the_same(dtype: torch.dtype) -> None:
    state = torch.get_rng_state()
    pair = directions(1000, dtype)
    assert pair.dtype == dtype and torch.equal(pair, directions(1000, dtype))
    assert torch.equal(state, torch.get_rng_state())
    assert pair.norm(dim=1).tolist() == pytest.approx([1.0, 1.0]) and abs(float(pair[0] @ pair[1])) < 0.2


def test_the_first_line_of_an_error_is_short() -> None:
    assert first_line(ValueError("one\ntwo")) == "one" and first_line(KeyError()) == "KeyError"
    assert len(first_line(ValueError("x" * 999))) == 200
