"""Standardized data train as if the script had prepared them so; the score stays on the original scale."""


import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unstuck.criterion import prepared, score
from unstuck.probes.data import measure
from unstuck.problem import Problem
from unstuck.remedies.standardize import (
    ALIKE,
    drop_unlabelled,
    figures,
    impute,
    standardize_inputs,
    standardize_targets,
)
from unstuck.training import Training

SIZES = torch.tensor([1.0, 300.0, 0.01])
X = torch.randn(64, 3, generator=torch.Generator().manual_seed(1)) * SIZES + 7 * SIZES
Y = (X / SIZES - 7) @ torch.tensor([[2.0], [-1.0], [1.0]])


def problem_of(x, y, loss=F.mse_loss, model=None, lr=0.1):
    torch.manual_seed(0)
    model = model or nn.Linear(3, 1)
    problem = Problem(model, loss, [(x, y)], optimizer=torch.optim.SGD(model.parameters(), lr))
    return prepared(problem)


def trained(problem, steps=60):
    run = Training(problem)
    run.advance(steps)
    return run


def test_inputs_train_as_if_prepared():
    problem = problem_of(X, Y)
    remedied = trained(standardize_inputs(problem, measure(problem).inputs).apply(problem))
    prepared = trained(problem_of((X - X.mean(0)) / X.std(0, unbiased=False), Y))
    torch.testing.assert_close(remedied.losses, prepared.losses, rtol=1e-3, atol=1e-5)
    assert remedied.score(problem.data).value > 0.99


def test_alike_features_share_their_figures_and_the_line_says_them():
    pixels = torch.rand(50, 9) * 255
    entrance = measure(problem_of(pixels, Y[:50], model=nn.Linear(9, 1))).inputs[0]
    mean, std = figures(entrance)
    assert float(mean[0]) == pytest.approx(float(pixels.mean()), rel=1e-5)
    assert float(std[0]) == pytest.approx(float(pixels.std(unbiased=False)), rel=1e-5)
    code = standardize_inputs(problem_of(pixels, Y[:50], model=nn.Linear(9, 1)), [entrance]).code
    assert f"{float(pixels.mean()):.3g}" in code
    assert ALIKE > 1


def test_a_constant_feature_is_only_centred():
    x = torch.cat([X[:, :2], torch.full((64, 1), 5.0)], 1)
    entrance = measure(problem_of(x, Y)).inputs[0]
    mean, std = figures(entrance)
    assert mean[2] == 5 and std[2] == 1


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.kinds, self.body = nn.Embedding(5, 2), nn.Linear(5, 1)

    def forward(self, kind, figures):
        return self.body(torch.cat([self.kinds(kind), figures], dim=1))


def test_only_the_figures_beside_an_embedding_are_changed():
    torch.manual_seed(0)
    kind, model = torch.randint(0, 5, (64,)), Mixed()
    problem = Problem(model, F.mse_loss, [(kind, X, Y)], optimizer=torch.optim.SGD(model.parameters(), 0.05))
    problem = prepared(problem)
    changed = standardize_inputs(problem, measure(problem).inputs).apply(problem)
    scaled = (X - X.mean(0)) / X.std(0, unbiased=False)
    expected = F.mse_loss(problem.twin()(kind, scaled), Y)
    torch.testing.assert_close(changed.value(changed.twin(), problem.data[0]), expected, rtol=1e-4, atol=1e-5)


LOSSES = [F.mse_loss, lambda o, t: ((o - t) ** 2).mean(), lambda o, t: ((t - o) ** 2).mean()]


@pytest.mark.parametrize("loss", LOSSES)
def test_targets_train_as_if_prepared_and_score_as_they_are(loss):
    x = (X - X.mean(0)) / X.std(0, unbiased=False)
    large = 1000 * Y + 50_000
    problem = problem_of(x, large, loss)
    targets = measure(problem).targets
    remedied = trained(standardize_targets(problem, targets).apply(problem))
    prepared = trained(problem_of(x, (large - large.mean()) / large.std(unbiased=False), loss))
    torch.testing.assert_close(remedied.losses, prepared.losses, rtol=1e-3, atol=1e-5)
    assert remedied.score(problem.data).value == pytest.approx(prepared.score(prepared.problem.data).value, abs=1e-4)
    start = standardize_targets(problem, targets).apply(problem)
    seen = start.evaluate(start.twin(), start.data[0])
    torch.testing.assert_close(seen.target, large)
    assert seen.output.mean() > 10_000


def test_columns_of_targets_have_their_own_figures():
    both = torch.cat([Y, 1000 * Y], 1)
    problem = problem_of(X, both, model=nn.Linear(3, 2))
    changed = standardize_targets(problem, measure(problem).targets).apply(problem)
    expected = F.mse_loss(problem.twin()(X), (both - both.mean(0)) / both.std(0, unbiased=False))
    torch.testing.assert_close(changed.value(changed.twin(), problem.data[0]), expected)


def test_gaps_are_filled_and_the_training_is_finite():
    x = (X - X.mean(0)) / X.std(0, unbiased=False)
    holes = x.clone()
    holes[::7, 1] = torch.nan
    holes[3, 0] = torch.inf
    problem = problem_of(holes, Y)
    assert trained(problem, 2).diverged
    run = trained(impute(problem, measure(problem).inputs).apply(problem))
    assert not run.diverged and run.score(problem.data).value > 0.7


def test_samples_without_a_target_are_left_out():
    x = (X - X.mean(0)) / X.std(0, unbiased=False)
    gaps = Y.clone()
    gaps[::5] = torch.nan
    for loss in LOSSES:
        problem = problem_of(x, gaps, loss)
        run = trained(drop_unlabelled(problem).apply(problem))
        assert run.score(problem.data).value > 0.99
        assert score(problem, run.model, problem.data).samples == int(gaps.isfinite().sum())
