"""Proofs of negative curvature: found at saddles that are known, and never where there is none."""

from __future__ import annotations

import pytest
import torch
from tests.curvature.test_scan import axis, bent, normal, of_function
from torch import Tensor, nn

from unstuck.curvature.product import Hessian
from unstuck.curvature.saddle import negative_curvature
from unstuck.problem import Problem

F64 = torch.float64


def whitened(rows: int, columns: int, batches: int = 1, seed: int = 0) -> Tensor:
    """Rows with XᵀX / rows = 1, in every one of so many batches as well."""
    return torch.cat([
        torch.linalg.qr(normal(rows // batches, columns, seed=seed + k))[0] * (rows // batches) ** 0.5
        for k in range(batches)
    ])  # fmt: skip


def deep_linear(width: int, rank: int, values: Tensor, rows: int = 256, batches: int = 1) -> Problem:
    """Three linear layers at a saddle: they fit the `rank` largest singular values of the target exactly.

    The inputs are white and the middle layer is a rotation (of hidden units that are mixed, so that no two are alike).
    With R what is not fitted, a step (a, b) into an unused hidden direction changes the loss, a mean over `width`
    outputs, by −2 aᵀRb / width: λmin = −2 σ(rank + 1) / width.
    """
    u, v, p, q = (torch.linalg.qr(normal(width, width, seed=seed))[0] for seed in (11, 12, 13, 14))
    used = values.where(torch.arange(width) < rank, 0.0).sqrt()
    net = nn.Sequential(*(nn.Linear(width, width, bias=False, dtype=F64) for _ in range(3)))
    with torch.no_grad():
        for layer, weight in zip(net, (p * used @ v.T, q @ p.T, u * used @ q.T), strict=True):
            layer.weight.copy_(weight)
    x = whitened(rows, width, batches)
    y = x @ ((u * values) @ v.T).T
    size = rows // (batches if batches > 1 else 8)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    return Problem(net, nn.MSELoss(), list(zip(x.split(size), y.split(size), strict=True)), optimizer=optimizer)


def test_the_saddle_of_the_lecture():
    problem = of_function(lambda w, x: (1 - w[0] * w[1]) ** 2 + 0 * x[:, 0], torch.zeros(2, dtype=F64), normal(16, 2))
    found = negative_curvature(Hessian(problem))
    assert found is not None and found.proven
    assert found.rayleigh == pytest.approx(-2, abs=1e-12) and found.residual < 1e-12
    assert found.direction.abs().tolist() == pytest.approx([0.5**0.5] * 2)
    assert found.direction.prod() > 0


def test_a_deep_linear_net_at_a_rank_deficient_saddle():
    values = torch.linspace(4, 0.4, 40, dtype=F64)
    hessian = Hessian(deep_linear(40, 5, values))
    assert hessian.size == 4800 and hessian.slopes().norm < 1e-12
    found = negative_curvature(hessian)
    least = -2 * float(values[5]) / 40
    assert found is not None and found.proven
    assert least - 1e-12 <= found.rayleigh < 0.5 * least
    assert found.rounding < 1e-10
    assert abs(found.rayleigh - least) <= found.residual or found.rayleigh > least


def test_the_quotient_is_that_of_all_data_and_its_spread_that_of_the_batches():
    x = normal(64 * 16, 5, seed=3) - torch.tensor([1.0, 0, 0, 0, 0], dtype=F64)
    hessian = Hessian(of_function(bent, torch.zeros(5, dtype=F64), x, size=16))
    found = negative_curvature(hessian)
    assert found is not None and found.samples < len(x)
    v = found.direction
    assert found.rayleigh == pytest.approx(float(x.mean(0) @ v.square()))
    quotients = torch.stack([batch.mean(0) @ v.square() for batch in x.split(16)])
    assert found.sampling == pytest.approx(float(quotients.std()) / 8)


def test_ragged_batches_and_sums_give_the_quotient_of_all_data():
    x = normal(1000, 4, seed=5) - torch.tensor([0.7, 0, 0, 0], dtype=F64)
    for total, scale in ((False, 1.0), (True, 48.0)):
        start = torch.full((4,), 0.1, dtype=F64)  # at a loss of 0 a sum is not told from a mean
        found = negative_curvature(Hessian(of_function(bent, start, x, size=48, total=total)))
        assert found is not None and found.proven
        assert found.rayleigh == pytest.approx(scale * float(x.mean(0) @ found.direction.square()))


# --- where there is none ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kind", ["linear", "logistic"])
def test_a_convex_loss_is_never_proven_to_be_a_saddle(kind, dtype):
    for seed in range(25):
        torch.manual_seed(seed)
        x, columns = torch.randn(512, 12, dtype=dtype), 3
        x[:, 6:] = x[:, :6]  # half of the directions have no curvature at all
        y = torch.randn(512, columns, dtype=dtype) if kind == "linear" else torch.randint(0, columns, (512,))
        loss = nn.MSELoss() if kind == "linear" else nn.CrossEntropyLoss()
        data = list(zip(x.split(32), y.split(32), strict=True))
        found = negative_curvature(Hessian(Problem(nn.Linear(12, columns, dtype=dtype), loss, data)), seed)
        assert found is None or not found.proven


def test_a_direction_that_is_negative_on_the_subsample_only_is_not_taken():
    """Batch by batch one direction of its own bends down, and all others bend up more: on the whole none does."""
    count, size = 24, 64
    x = torch.full((count, size, count), 1.0, dtype=F64)
    x[torch.arange(count), :, torch.arange(count)] = -10.0
    assert float(x.mean((0, 1)).min()) > 0
    hessian = Hessian(of_function(bent, torch.zeros(count, dtype=F64), x.reshape(-1, count), size))
    for place in range(4):
        assert float(hessian.part([place]).along(axis(count, place))[1]) < 0
    for seed in range(20):
        assert negative_curvature(hessian, seed) is None


def test_a_kink_takes_the_proof_back():
    """The autodiff curvature is −1, yet |w| bends up: found, and not proven."""
    value = lambda w, x: 1 + w[0].abs() - 0.5 * w[0] ** 2 + 0 * x[:, 0]  # noqa: E731
    found = negative_curvature(Hessian(of_function(value, torch.zeros(1, dtype=F64), normal(16, 1))))
    assert found is not None and found.rayleigh == -1.0
    assert not found.scan.bends_down and not found.proven
