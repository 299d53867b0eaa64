"""Verdicts on points whose kind is known, with the figures they rest on."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.reference import blobs
from tests.curvature.test_saddle import deep_linear, whitened
from tests.curvature.test_scan import axis, bent, normal, of_function
from torch import Tensor, nn

from unstuck.curvature.point import FLAT, NOISE, classify, judged
from unstuck.errors import BadArgument, NotMeasurable
from unstuck.problem import Problem, state_of

F64 = torch.float64
ZERO = torch.zeros(2, dtype=F64)


def quadratic(diagonal: list[float], slope: float = 0.0, level: float = 1.0) -> Problem:
    """level + slope·θ₀ + ½ Σ dᵢ θᵢ² at 0, the same for every sample."""
    d = torch.tensor(diagonal, dtype=F64)
    return of_function(
        lambda w, x: level + slope * w[0] + 0.5 * d @ w.square() + 0 * x[:, 0], torch.zeros_like(d), normal(64, 2)
    )


def solved(columns: int, outputs: int, rows: int = 512, dtype=F64) -> tuple[Problem, Tensor]:
    """Linear regression at its solution; the eigenvalues of its Hessian: 2 σᵢ² / (rows · outputs), each repeated."""
    x, y = normal(rows, columns), normal(rows, outputs, seed=1)
    net = nn.Linear(columns, outputs, bias=False, dtype=dtype)
    with torch.no_grad():
        net.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    x, y = x.to(dtype), y.to(dtype)
    values = 2 * torch.linalg.svdvals(x.double()).square() / (rows * outputs)
    return Problem(net, nn.MSELoss(), list(zip(x.split(64), y.split(64), strict=True))), values


# --- each verdict -----------------------------------------------------------------------------------------------------


def test_the_saddle_of_the_lecture_exactly():
    found = classify(of_function(lambda w, x: (1 - w[0] * w[1]) ** 2 + 0 * x[:, 0], ZERO, normal(16, 2)))
    assert found.verdict == "saddle" and found.critical
    assert found.ends.eigenvalues == pytest.approx((-2, 2))
    assert found.ends.least.failure == 0 and found.ends.least.low <= -2 <= found.ends.least.high
    assert found.rayleigh == pytest.approx(-2) and found.scan.bends_down
    assert found.gradient == 0 and found.loss == 1 and found.promise == 0 and math.isnan(found.flatness)
    assert found.direction.abs().tolist() == pytest.approx([0.5**0.5] * 2)
    assert "λmin is in [" in found.why and "bends down" in found.why


def test_a_deep_linear_net_of_many_parameters_at_its_saddle():
    values = torch.linspace(4, 0.4, 40, dtype=F64)
    found = classify(deep_linear(40, 5, values))
    assert found.verdict == "saddle" and found.ends.ritz is not None and found.ends.eigenvalues is None
    least = -2 * float(values[5]) / 40
    assert found.ends.least.failure == 0.01
    assert found.ends.least.low <= least <= found.ends.least.high
    assert found.ends.least.high - found.ends.least.low <= 0.1 * abs(least)
    assert found.rayleigh == pytest.approx(least, rel=0.05)
    assert found.parameters == 4800 and found.samples == 256


@pytest.mark.parametrize(("columns", "outputs"), [(12, 3), (70, 64)], ids=["exact", "lanczos"])
def test_the_solution_of_linear_regression_is_a_minimum(columns, outputs):
    problem, values = solved(columns, outputs)
    found = classify(problem)
    assert found.verdict == "minimum"
    assert (found.ends.eigenvalues is not None) == (columns * outputs <= 4000)
    least, most = float(values.min()), float(values.max())
    assert found.ends.least.low <= least <= found.ends.least.high
    assert found.ends.most.low <= most <= found.ends.most.high
    assert found.epsilon == pytest.approx(0.01 * most, rel=0.1)
    sure = "exactly" if found.ends.eigenvalues is not None else "with probability 99 %"
    assert found.why.startswith("λmin ≥ ") and sure in found.why


def test_a_minimum_in_float32_is_one_too():
    problem, values = solved(12, 3, dtype=torch.float32)
    found = classify(problem)
    assert found.verdict == "minimum" and "float64" not in found.rung
    assert found.ends.eigenvalues == pytest.approx(values.repeat_interleave(3).sort().values.tolist(), rel=1e-5)


def test_a_maximum():
    found = classify(quadratic([-1.0, -3.0]))
    assert found.verdict == "maximum" and found.ends.eigenvalues == pytest.approx((-3, -1))
    assert found.why.startswith("λmax ≤ -1")


def test_curvature_below_epsilon_is_none():
    assert classify(quadratic([1.0, -1e-3])).verdict == "minimum"
    assert classify(quadratic([1.0, -1e-3]), tolerance=1e-4).verdict == "saddle"
    assert classify(quadratic([1.0, 0.0])).verdict == "minimum"
    assert classify(quadratic([-1.0, 1e-3])).verdict == "maximum"


def test_flat():
    found = classify(quadratic([1e-4, 2e-4], slope=1e-3))
    assert found.verdict == "flat"
    moves = 1e-3 + 0.5 * 2e-4
    assert f"changes the loss by {100 * moves:.2g} % at most" in found.why
    assert classify(quadratic([1e-4, 2e-4], slope=2 * FLAT)).verdict == "slope"
    assert classify(quadratic([1e-4, 3 * FLAT])).verdict == "minimum"


def far_out(columns: int, outputs: int) -> Problem:
    """A loss that gives up on large errors, from far away: neither gradient nor curvature."""
    net = nn.Linear(columns, outputs, dtype=F64)
    with torch.no_grad():
        net.bias.fill_(100.0)

    def bounded(output: Tensor, target: Tensor) -> Tensor:
        return (1 - torch.exp(-(output - target).square())).mean()

    x, y = normal(128, columns), normal(128, outputs, seed=1)
    return Problem(net, bounded, list(zip(x.split(16), y.split(16), strict=True)))


@pytest.mark.parametrize(("columns", "outputs"), [(6, 2), (70, 64)], ids=["exact", "lanczos"])
def test_far_out_on_a_bounded_loss_it_is_flat(columns, outputs):
    assert classify(far_out(columns, outputs)).verdict == "flat"


@pytest.mark.parametrize(("columns", "outputs"), [(6, 2), (70, 64)], ids=["exact", "lanczos"])
def test_a_loss_of_zero_without_gradient_or_curvature_is_flat(columns, outputs):
    """A hinge whose margin every sample keeps."""
    net = nn.Linear(columns, outputs, dtype=F64)
    with torch.no_grad():
        net.bias.fill_(50.0)
    x, y = normal(64, columns), torch.ones(64, outputs, dtype=F64)
    data = list(zip(x.split(16), y.split(16), strict=True))
    found = classify(Problem(net, lambda output, target: F.relu(1 - output * target).mean(), data))
    assert found.loss == 0 and found.verdict == "flat"


def test_a_slope():
    found = classify(quadratic([2.0, 1.0], slope=3.0))
    assert found.verdict == "slope" and not found.critical
    assert found.gradient == pytest.approx(3) and found.promise == pytest.approx(9 / (2 * 2))
    assert found.flatness == pytest.approx(1)
    assert "promises 2.2e+02 % of the loss in one step" in found.why


def test_a_slope_that_bends_down_promises_without_end():
    found = classify(quadratic([-2.0, 1.0], slope=3.0))
    assert found.verdict == "slope" and found.promise == math.inf
    assert "the loss does not bend up along it" in found.why


def test_gradient_flat():
    """The gradient lies in the kernel of the Hessian: methods that minimize its length stop here."""
    found = classify(quadratic([0.0, 2.0], slope=0.5))
    assert found.verdict == "slope" and found.flatness == 0.0
    assert "kernel (gradient-flat)" in found.why
    assert "bends down" not in found.why
    assert "gradient-flat" not in classify(quadratic([1.0, 2.0], slope=0.5)).why


def test_a_kink_leaves_it_undecided():
    value = lambda w, x: 1 + w[0].abs() - 0.5 * w[0] ** 2 + 2 * w[1] ** 2 + 0 * x[:, 0]  # noqa: E731
    found = classify(of_function(value, ZERO, normal(16, 2)))
    assert found.verdict == "undecided" and found.ends.eigenvalues == pytest.approx((-1, 4))
    assert "the loss itself does not bend down" in found.why


# --- is it critical at all --------------------------------------------------------------------------------------------


def test_a_gradient_within_its_sampling_noise_is_none():
    x = normal(256, 2)
    means = torch.stack([part.mean(0) for part in x.split(32)])
    noise = math.sqrt(float((means - means.mean(0)).square().sum()) / 7 / 8)
    for share, verdict in ((1.5, "minimum"), (2.5, "slope")):
        start = x.mean(0) + share * noise * axis(2, 0)
        found = classify(of_function(lambda w, x: 0.5 * (w - x).square().sum(1), start, x, size=32))
        assert found.gradient == pytest.approx(share * noise)
        assert found.noise == pytest.approx(noise)
        assert found.critical is (share < NOISE) and found.verdict == verdict
        assert found.promise == pytest.approx((share * noise) ** 2 / 2)


def test_a_gradient_that_promises_next_to_nothing_is_none():
    assert classify(quadratic([1.0, 1.0], slope=0.04)).verdict == "minimum"
    assert classify(quadratic([1.0, 1.0], slope=0.05)).verdict == "slope"


def test_one_large_batch_is_cut_for_the_noise():
    x = normal(256, 2)
    found = classify(of_function(lambda w, x: 0.5 * (w - x).square().sum(1), x.mean(0), x, size=256))
    means = torch.stack([part.mean(0) for part in x.split(32)])
    assert found.noise == pytest.approx(math.sqrt(float((means - means.mean(0)).square().sum()) / 7 / 8))


def test_a_sum_is_judged_like_its_mean():
    x = normal(100, 3) - torch.tensor([0.5, 0, -1], dtype=F64)
    start = torch.full((3,), 1e-3, dtype=F64)
    value = lambda w, x: 1 + bent(w, x)  # noqa: E731
    mean, total = (classify(of_function(value, start, x, size=24, total=t)) for t in (False, True))
    assert mean.verdict == total.verdict == "saddle"
    assert total.loss == pytest.approx(24 * mean.loss) and total.gradient == pytest.approx(24 * mean.gradient)
    assert total.rayleigh == pytest.approx(24 * float(x.mean(0).min()))
    assert total.ends.eigenvalues == pytest.approx([24 * value for value in mean.ends.eigenvalues])


# --- models and states ------------------------------------------------------------------------------------------------


def test_batch_statistics_are_those_of_the_training_and_stay():
    x, y = blobs(64, 6)
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
    problem = Problem(net, nn.CrossEntropyLoss(), list(zip(x.split(8), y.split(8), strict=True)))
    before = state_of(problem.model)
    found = classify(problem)
    assert all(torch.equal(before[name], value) for name, value in state_of(problem.model).items())
    logits = torch.cat([net(part) for part in x.split(8)])
    assert found.loss == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)


def test_batchnorm_makes_the_bias_before_it_flat():
    x, y = blobs(64, 6)
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    with torch.no_grad():
        net[2].weight.zero_()
        net[2].bias.copy_(torch.bincount(y, minlength=3).div(64).log())
    found = classify(Problem(net, nn.CrossEntropyLoss(), [(x, y)]))
    eigenvalues = torch.tensor(found.ends.eigenvalues)
    assert int((eigenvalues.abs() < 1e-9).sum()) >= 5
    assert float(eigenvalues.min()) < 0


def test_where_the_training_was_left_or_where_it_began():
    problem = quadratic([2.0, -1.0])
    moved = {"theta": torch.tensor([1.0, 0.0], dtype=F64)}
    problem = replace(problem, last=moved)
    assert classify(problem, last=False).verdict == "saddle"
    assert classify(problem).verdict == "slope" and classify(problem).gradient == pytest.approx(2)


# --- time, and what cannot be had -------------------------------------------------------------------------------------


def test_at_the_budget_it_says_what_it_has():
    problem, _ = solved(70, 64)
    found = classify(problem, budget_s=1e-6)
    assert found.verdict == "undecided" and found.products < 40
    assert "allows of both signs" in found.why
    assert found.ends.least.low < 0 < found.ends.least.high


def test_the_budget_holds():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(100, 100), nn.Tanh(), nn.Linear(100, 10))
    x, y = blobs(4096, 100, 10)
    problem = Problem(net, nn.CrossEntropyLoss(), list(zip(x.split(512), y.split(512), strict=True)))
    classify(problem, budget_s=0.1)  # what the first use costs is not of interest
    began = time.process_time()
    found = classify(problem, budget_s=1.0)
    assert time.process_time() - began < 3.0
    assert found.products > 0 and found.gradients > 0 and found.seconds > 0


def test_progress_is_told():
    told = []
    classify(quadratic([1.0, 2.0]), tick=lambda what, share: told.append((what, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1


@pytest.mark.parametrize("name", ["tolerance", "failure"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, math.nan])
def test_what_is_no_share_is_refused(name, value):
    with pytest.raises(BadArgument, match=f"classify: `{name}` must be between 0 and 1, got"):
        classify(quadratic([1.0]), **{name: value})


def frozen() -> Problem:
    net = nn.Linear(4, 2).requires_grad_(False)
    return Problem(net, nn.MSELoss(), [(torch.randn(8, 4), torch.randn(8, 2))])


def independent() -> Problem:
    return Problem(nn.Linear(4, 2), lambda out, y: (y**2).mean(), [(torch.randn(8, 4), torch.randn(8, 2))])


def not_finite() -> Problem:
    net = nn.Linear(4, 2)
    with torch.no_grad():
        net.weight[0, 0] = math.nan
    return Problem(net, nn.MSELoss(), [(torch.randn(8, 4), torch.randn(8, 2))])


def random() -> Problem:
    generator = torch.Generator().manual_seed(0)

    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.rand(1, generator=generator).item()

    return Problem(Noisy(4, 2), nn.MSELoss(), [(torch.randn(8, 4), torch.randn(8, 2))])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (frozen, "no trainable parameter"),
        (independent, "does not depend on any trainable parameter"),
        (not_finite, "the loss is not finite"),
        (random, "two evaluations of the loss differ"),
    ],
)
def test_what_cannot_be_measured_names_its_cause(make, message):
    with pytest.raises(NotMeasurable, match=message):
        classify(make())


def test_a_verdict_is_a_function_of_its_figures():
    found = classify(quadratic([2.0, -1.0]))
    assert judged(found) == found or judged(found).why == found.why
    assert judged(replace(found, gradient=5.0, noise=0.1, promise=1.0)).verdict == "slope"
    assert judged(replace(found, loss=1e6)).verdict == "flat"


def test_whitened_inputs_are_white():
    x = whitened(128, 5, batches=4)
    for part in x.split(32):
        assert torch.allclose(part.T @ part / 32, torch.eye(5, dtype=F64))
