"""The loss along a line against closed forms: quadratics, their spread over batches, and kinks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from unstuck.curvature.product import Hessian
from unstuck.curvature.scan import LENGTHS, SHRINK, Scan, of_losses, scan
from unstuck.problem import Problem

F64 = torch.float64


class PerSample(nn.Module):
    """A loss of the parameters and of each sample: `value(theta, x)` is [rows]."""

    def __init__(self, start: Tensor, value) -> None:
        super().__init__()
        self.theta, self.value = nn.Parameter(start.clone()), value

    def forward(self, x: Tensor) -> Tensor:
        return self.value(self.theta, x)


def of_function(value, start: Tensor, x: Tensor, size: int = 8, total: bool = False, **fields) -> Problem:
    """A problem whose loss is the mean (or the sum) of `value(theta, x)` over the rows of x, in batches of `size`."""

    def loss(output: Tensor, _: Tensor) -> Tensor:
        return output.sum() if total else output.mean()

    return Problem(PerSample(start, value), loss, list(zip(x.split(size), x.split(size), strict=True)), **fields)


def bent(theta: Tensor, x: Tensor) -> Tensor:
    """½ θᵀ diag(x) θ for each row of x: the Hessian of a batch is the diagonal of its rows' mean."""
    return 0.5 * x @ theta.square()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def beyond(line: Scan) -> tuple[float, ...]:
    """The positive lengths."""
    return tuple(length for length in line.lengths if length > 0)


def axis(size: int, place: int) -> Tensor:
    return torch.eye(size, dtype=F64)[place]


def test_a_quadratic_is_its_own_model():
    a, b, start = normal(6, 6), normal(6, seed=1), normal(6, seed=2)
    a = a + a.T
    problem = of_function(lambda w, x: (w @ a @ w / 2 + b @ w) + 0 * x[:, 0], start, normal(16, 6, seed=3))
    v = normal(6, seed=4)
    v /= v.norm()
    line = scan(Hessian(problem), v, float(v @ a @ v))
    assert line.slope == pytest.approx(float(v @ (a @ start + b)), rel=1e-9)
    assert line.changes == pytest.approx([line.model(length) for length in line.lengths], rel=1e-9, abs=1e-12)
    for length, (even, _) in zip(beyond(line), line.even, strict=True):
        assert even == pytest.approx(length**2 * float(v @ a @ v) / 2, rel=1e-9)
    assert line.loss == pytest.approx(float(start @ a @ start / 2 + b @ start))


def test_lengths_go_from_an_eighth_of_the_parameters_own_down_both_ways():
    start, up = torch.full((4,), 3.0, dtype=F64), normal(16, 4).abs()
    hessian = Hessian(of_function(bent, start, up))
    found = scan(hessian, axis(4, 0), 0.0).lengths
    assert found == pytest.approx(sorted(found))
    assert found == pytest.approx([-length for length in reversed(found)])
    assert len(found) == 2 * LENGTHS + 1 and found[-1] == pytest.approx(6.0 / 8)
    assert found[-1] / found[-2] == pytest.approx(SHRINK)
    assert scan(hessian, axis(4, 0), 0.0, reach=0.5).lengths[-1] == 0.5
    small = Hessian(of_function(bent, start / 100, up))
    assert scan(small, axis(4, 0), 0.0).lengths[-1] == 1.0 / 8


def test_it_ends_where_the_loss_bends_down():
    for quartic, count in ((0.0, 1), (1e3, 2), (1e5, 3), (1e7, 4)):  # w⁴ outweighs w² from 1/√quartic on
        line = along(lambda w: quartic * w**4 - w**2, -2.0)  # noqa: B023
        assert line.bends_down and len(line.lengths) == 2 * count + 1 and len(line.even) == count


def test_errors_over_batches_are_those_of_the_mean_of_equal_batches():
    x = normal(40, 3)
    hessian = Hessian(of_function(bent, torch.zeros(3, dtype=F64), x))
    line = scan(hessian, axis(3, 1), 0.0)
    means = torch.stack([part[:, 1].mean() for part in x.split(8)])
    for length, change, error in zip(line.lengths, line.changes, line.errors, strict=True):
        assert change == pytest.approx(0.5 * length**2 * float(means.mean()))
        assert error == pytest.approx(0.5 * length**2 * float(means.std()) / math.sqrt(5), abs=1e-15)


def test_ragged_batches_count_by_their_samples():
    losses = torch.tensor([[1.0, 5.0], [0.0, 0.0], [1.0, 3.0]], dtype=F64)
    line = of_losses([-1.0, 0.0, 1.0], losses, [0.75, 0.25], 0.0)
    assert line.changes == pytest.approx((2.0, 0.0, 1.5))
    spread = 0.75 * (1 - 1.5) ** 2 + 0.25 * (3 - 1.5) ** 2
    assert line.errors[2] == pytest.approx(math.sqrt(spread))
    assert line.even[0][0] == pytest.approx(1.75)
    assert line.slope == pytest.approx((1.5 - 2.0) / 2)


def test_a_sum_has_the_errors_of_its_mean_times_the_batch():
    x = normal(40, 3)
    mean, total = (
        scan(Hessian(of_function(bent, torch.zeros(3, dtype=F64), x, total=t)), axis(3, 1), 0.0) for t in (False, True)
    )
    assert total.changes == pytest.approx([8 * change for change in mean.changes])
    assert total.errors == pytest.approx([8 * error for error in mean.errors])


def test_a_single_batch_has_no_error_and_still_a_verdict():
    hessian = Hessian(of_function(lambda w, x: 1 - w[0] ** 2 + 0 * x[:, 0], torch.zeros(1, dtype=F64), normal(8, 1)))
    line = scan(hessian, axis(1, 0), -2.0)
    assert all(math.isnan(error) for error in line.errors)
    assert line.bends_down


# --- what bends down --------------------------------------------------------------------------------------------------


def along(value, curvature: float) -> Scan:
    """The scan of a function of one parameter at 0, the same for every sample."""
    start = torch.zeros(1, dtype=F64)
    hessian = Hessian(of_function(lambda w, x: value(w[0]) + 0 * x[:, 0], start, normal(16, 1)))
    return scan(hessian, axis(1, 0), curvature)


@pytest.mark.parametrize(
    ("value", "curvature", "down"),
    [
        (lambda w: 1 - w**2, -2.0, True),
        (lambda w: 1 + w**2, 2.0, False),
        (lambda w: 1 + w, 0.0, False),
        (lambda w: 1 + 5 * w - 0.1 * w**2, -0.2, True),
        (lambda w: 1 + w**4 - 0.01 * w**2, -0.02, True),
        (lambda w: 1 + w**3, 0.0, False),
        (lambda w: 1 + 0 * w, 0.0, False),
    ],
)
def test_only_what_bends_down_is_said_to(value, curvature, down):
    assert along(value, curvature).bends_down is down


def test_a_kink_that_automatic_differentiation_does_not_see_is_seen():
    value = lambda w: 1 + w.abs() - 0.5 * w**2  # noqa: E731
    start = torch.zeros(1, dtype=F64)
    hessian = Hessian(of_function(lambda w, x: value(w[0]) + 0 * x[:, 0], start, normal(16, 1)))
    assert float(hessian(axis(1, 0))) == -1.0
    line = along(value, -1.0)
    assert not line.bends_down and line.best == len(line.lengths) // 2
    flat = along(lambda w: 1 + w.abs(), 0.0)
    assert not flat.bends_down and min(change for change, _ in flat.even) > 0


def test_what_the_batches_do_not_agree_on_does_not_bend_down():
    sizes = torch.tensor([1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 4.0, -4.0], dtype=F64)
    signs = sizes.repeat_interleave(8).unsqueeze(1)
    hessian = Hessian(of_function(lambda w, x: 1 + (x[:, 0] - 0.01) * w[0] ** 2, torch.zeros(1, dtype=F64), signs))
    line = scan(hessian, axis(1, 0), -0.02)
    assert line.changes[-1] == pytest.approx(-0.01 * line.lengths[-1] ** 2) and not line.bends_down
    sure = Hessian(of_function(lambda w, x: 1 + (0.001 * x[:, 0] - 0.01) * w[0] ** 2, torch.zeros(1, dtype=F64), signs))
    assert scan(sure, axis(1, 0), -0.02).bends_down


def test_a_line_the_batches_agree_on_is_told_from_their_own_levels():
    levels = torch.arange(8, dtype=F64).repeat_interleave(8).unsqueeze(1) * 100
    hessian = Hessian(of_function(lambda w, x: x[:, 0] - w[0] ** 2, torch.zeros(1, dtype=F64), levels))
    line = scan(hessian, axis(1, 0), -2.0)
    assert line.bends_down and max(line.errors) < 1e-12


def test_a_dip_far_shorter_than_the_parameters_is_seen():
    # From parameters of length 130 the loss follows its curvature for a step of 0.3 only.
    def value(w: Tensor, x: Tensor) -> Tensor:
        return 2 + 0.3 * w[0] ** 4 - 0.03 * w[0] ** 2 + 0 * w[1] + 0 * x[:, 0]

    hessian = Hessian(of_function(value, torch.tensor([0.0, 130.0], dtype=F64), normal(16, 1)))
    line = scan(hessian, axis(2, 0), -0.06)
    assert line.bends_down and line.even[1][0] > 0


@pytest.mark.parametrize("total", [False, True])
def test_few_batches_speak_for_all_whose_curvature_is_known(total):
    # A sample's loss is (x − 0.01) w², x is 1 in every second batch, −1 in the others; a kink is for the few to see.
    signs = torch.tensor([1.0, -1.0] * 4, dtype=F64).repeat_interleave(8)
    rows = torch.stack([signs, torch.arange(64, dtype=F64)], 1)
    for kink, down in ((0.0, True), (10.0, False)):
        value = lambda w, x: 1 + (x[:, 0] - 0.01) * w[0] ** 2 + kink * w[0].abs()  # noqa: B023, E731
        hessian = Hessian(of_function(value, torch.zeros(1, dtype=F64), rows, total=total))
        few, size = hessian.part(range(3)), 8.0 if total else 1.0
        quotients = size * 2 * torch.tensor([1 - 0.01, -1 - 0.01, 1 - 0.01], dtype=F64)
        line = scan(few, axis(1, 0), -0.02 * size, quotients=quotients)
        assert not scan(few, axis(1, 0), -0.02 * size).bends_down
        assert line.bends_down is down
        if down:
            expected = [-0.01 * size * length**2 for length in beyond(line)]
            assert [even for even, _ in line.even] == pytest.approx(expected, rel=1e-6)
            assert max(error for _, error in line.even) < 1e-9


def test_the_best_place_is_finite():
    cliff = along(lambda w: torch.where(w.abs() > 0.05, -math.inf, 1 - w**2), -2.0)
    assert cliff.bends_down and abs(cliff.lengths[cliff.best]) == pytest.approx(1 / SHRINK**2)
