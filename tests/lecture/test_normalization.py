from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from unstuck.lecture import normalization
from unstuck.lecture.batch_norm import SIZES, TOGETHER, BatchNorm, accuracy, batch_noise, changed, recalibrated, train
from unstuck.lecture.digits import digits
from unstuck.lecture.parts import Parts, english


@pytest.fixture(scope="module")
def parts() -> Parts:
    return normalization.shown(english, seeds=range(3), updates=120)


def test_every_claim_holds(parts: Parts) -> None:
    assert len(parts.claims) == 9 and all(claim.held for claim in parts.claims)


def test_the_condition_numbers_are_those_of_the_inputs() -> None:
    """H = 2/N XᵀX; once normalized 2 (1 r; r 1), so that λmax/λmin = (1 + |r|)/(1 − |r|)."""
    x = normalization.FEATURES.numpy()
    values = np.linalg.eigvalsh(2 / len(x) * x.T @ x)
    assert normalization.condition(normalization.raw) == pytest.approx(values[1] / values[0])
    r = abs(np.corrcoef(x.T)[0, 1])
    assert normalization.condition(normalization.normalized) == pytest.approx((1 + r) / (1 - r))
    assert normalization.stable(normalization.raw) == pytest.approx(0.75 * 2 / values[1])


def test_the_losses_are_that_of_one_linear_model() -> None:
    """The same predictions before and after, at weights that correspond: w̃ = σ w."""
    spread = normalization.FEATURES.std(0, correction=0)
    best = normalization.BEST
    zero = [normalization.raw(*best), normalization.normalized(*(spread * best))]
    assert [float(loss) for loss in zero] == pytest.approx([0.0, 0.0], abs=1e-20)
    w = torch.tensor([0.3, -0.2], dtype=torch.float64)
    predicted = normalization.FEATURES @ (w - best)
    assert float(normalization.raw(*w)) == pytest.approx(float((predicted**2).mean()))
    centred = predicted - predicted.mean()
    assert float(normalization.normalized(*(spread * w))) == pytest.approx(float((centred**2).mean()))


def test_descent_is_the_closed_form(parts: Parts) -> None:
    """w_k = w* + (I − ηH)ᵏ (w_0 − w*)."""
    x = normalization.FEATURES.numpy()
    step = np.eye(2) - normalization.stable(normalization.raw) * 2 / len(x) * x.T @ x
    best = normalization.BEST.numpy()
    end = best + np.linalg.matrix_power(step, normalization.STEPS) @ (np.array(normalization.START) - best)
    path = parts.charts[0].curves[0]
    assert (path.x[-1], path.y[-1]) == pytest.approx(tuple(end))


def test_the_layer_is_torchs_when_its_group_is_the_batch() -> None:
    ours, theirs = BatchNorm(5, 32, momentum=0.3), nn.BatchNorm1d(5, affine=False, momentum=0.3)
    for _ in range(4):
        x = 3 * torch.randn(32, 5) + 1
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    assert torch.allclose(ours.mean, theirs.running_mean) and torch.allclose(ours.variance, theirs.running_var)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-5)


def test_each_group_is_normalized_for_itself() -> None:
    x = torch.randn(32, 5)
    together, alone = BatchNorm(5, 8)(x), [BatchNorm(5, 8)(part) for part in x.split(8)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


def test_a_batchs_mean_is_off_by_sigma_over_its_root() -> None:
    found = batch_noise(digits(512), draws=500)
    assert [noise * size**0.5 for noise, size in zip(found, SIZES, strict=True)] == pytest.approx([1.0] * 9, rel=0.1)


def test_momentum_changes_what_is_remembered_and_not_what_is_learnt() -> None:
    data = digits(256)
    quick, never = (train(data, TOGETHER, momentum, seed=3, updates=20) for momentum in (0.1, 0.0))
    assert all(torch.equal(a, b) for a, b in zip(quick.parameters(), never.parameters(), strict=True))
    norms = [module for module in never if isinstance(module, BatchNorm)]
    assert all(not norm.mean.any() and bool((norm.variance == 1).all()) for norm in norms)
    with torch.no_grad():
        first = never[0](data.x)
    exact = recalibrated(never, data)[1]
    assert torch.allclose(exact.mean, first.mean(0), atol=1e-5)
    assert torch.allclose(exact.variance, first.var(0), rtol=1e-4)


def test_accuracy_leaves_the_network_as_it_was() -> None:
    data = digits(256)
    model = train(data, TOGETHER, 0.1, seed=0, updates=20)
    before = copy.deepcopy(model.state_dict())
    alone = accuracy(model, data, 1)
    assert alone == pytest.approx(float((data.others_y == _constant(model)).double().mean()))
    assert accuracy(model, data) > 0.5
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and [m.size for m in model if isinstance(m, BatchNorm)] == [TOGETHER, TOGETHER]


def _constant(model: nn.Sequential) -> int:
    """What a network says whose normalized layers all give 0: alone, a sample is its own mean."""
    with torch.no_grad():
        return int(changed(model, size=1)(torch.rand(1, 64)).argmax())
