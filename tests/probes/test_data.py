"""Inputs are measured where they enter the first layer, targets as the criterion gets them."""


import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unstuck.criterion import prepared
from unstuck.errors import UnstuckError
from unstuck.probes.data import Data, measure, moments
from unstuck.problem import Problem
from unstuck.remedies.standardize import standardize_inputs


def measured(model: nn.Module, loss, batches) -> Data:
    problem = Problem(model, loss, batches)
    return measure(prepared(problem))


def test_features_of_a_table_have_numpys_mean_and_spread():
    x = torch.randn(40, 3) * torch.tensor([1.0, 100.0, 0.01]) + 5
    (entrance,) = measured(nn.Linear(3, 1), F.mse_loss, [(x, torch.randn(40, 1))]).inputs
    torch.testing.assert_close(entrance.mean, x.double().mean(0))
    torch.testing.assert_close(entrance.std, x.double().std(0, unbiased=False))
    assert (entrance.layer, entrance.axis, entrance.samples) == ("linear", -1, 40)


def test_channels_of_an_image_are_the_features_of_a_convolution():
    x = torch.rand(6, 2, 5, 5) * torch.tensor([1.0, 255.0])[:, None, None]
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(36, 1))
    (entrance,) = measured(model, F.mse_loss, [(x, torch.randn(6, 1))]).inputs
    torch.testing.assert_close(entrance.mean, x.double().mean((0, 2, 3)))


class Prepared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 1)

    def forward(self, x):
        return self.body(x.float() / 255)


def test_the_models_own_preparation_counts():
    x = torch.randint(0, 256, (20, 3))
    (entrance,) = measured(Prepared(), F.mse_loss, [(x, torch.randn(20, 1))]).inputs
    assert entrance.peak.max() <= 1


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kinds, self.body = nn.Embedding(5, 4), nn.Linear(6, 1)

    def forward(self, kind, figures):
        return self.body(torch.cat([self.kinds(kind), figures], dim=1))


def test_figures_joined_to_an_embedding_are_an_entrance_and_indices_are_none():
    kind, figures = torch.randint(0, 5, (20,)), torch.randn(20, 2) * 1000
    (entrance,) = measured(Mixed(), F.mse_loss, [(kind, figures, torch.randn(20, 1))]).inputs
    assert entrance.place == 1
    torch.testing.assert_close(entrance.mean, figures.double().mean(0))


TOKENS = {
    "product": lambda x, w: x[:, :, None] * w,
    "product, weights first": lambda x, w: w * x.unsqueeze(-1),
    "torch.mul": lambda x, w: torch.mul(x[..., None], w),
    "einsum": lambda x, w: torch.einsum("nf,fd->nfd", x, w),
    "named": lambda x, w: F.linear(input=x, weight=w.T),
}


class Tokens(nn.Module):
    def __init__(self, form) -> None:
        super().__init__()
        self.weight, self.form = nn.Parameter(torch.randn(3, 4)), form

    def forward(self, x):
        return self.form(x, self.weight).flatten(1).sum(1)


@pytest.mark.parametrize("form", TOKENS.values(), ids=TOKENS)
def test_features_multiplied_by_a_models_own_weights_are_an_entrance(form):
    x = torch.randn(40, 3) * torch.tensor([1.0, 100.0, 0.01]) + 5
    problem = Problem(Tokens(form), F.mse_loss, [(x, torch.randn(40))])
    (entrance,) = measure(problem).inputs
    torch.testing.assert_close(entrance.mean, x.double().mean(0))
    changed = standardize_inputs(problem, [entrance]).apply(problem)
    (after,) = measure(changed).inputs
    torch.testing.assert_close(after.mean, torch.zeros(3).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.std, torch.ones(3).double(), atol=1e-4, rtol=0)


def test_a_factor_for_all_features_alike_is_no_entrance():
    x = torch.randn(40, 3)
    with pytest.raises(UnstuckError, match="no data was seen"):
        measure(Problem(Tokens(lambda x, w: x * w[0, 0]), lambda out, _: out.mean(), [(x, torch.randn(40))]))


@pytest.mark.parametrize("model", [nn.GRU(3, 4, batch_first=True), nn.LSTM(3, 4, batch_first=True)])
def test_a_recurrent_layer_is_an_entrance(model):
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = model

        def forward(self, x):
            return self.body(x)[0][:, -1, :1]

    x = torch.randn(8, 5, 3)
    (entrance,) = measured(Last(), F.mse_loss, [(x, torch.randn(8, 1))]).inputs
    torch.testing.assert_close(entrance.mean, x.double().mean((0, 1)))


def test_a_normalization_first_and_ones_and_zeros_are_told():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    first = measured(model, F.mse_loss, [(torch.randn(9, 3) * 1e4, torch.randn(9, 1))]).inputs[0]
    onehot = measured(nn.Linear(3, 1), F.mse_loss, [(torch.eye(3), torch.randn(3, 1))]).inputs[0]
    assert first.normalized and not first.binary
    assert onehot.binary and not onehot.normalized


def test_what_is_not_finite_is_counted_and_left_out_of_the_moments():
    x = torch.tensor([[1.0, torch.nan], [3.0, torch.inf], [2.0, 7.0]])
    mean, std = moments(x.double())
    assert mean.tolist() == [2.0, 7.0] and std[1] == 0
    data = measured(nn.Linear(2, 1), F.mse_loss, [(x, torch.tensor([[1.0], [torch.nan], [2.0]]))])
    assert data.inputs[0].nonfinite == pytest.approx(2 / 6)
    assert data.targets is not None and data.targets.nonfinite == pytest.approx(1 / 3)


def test_targets_have_shares_for_classes_and_columns_for_values():
    y = torch.tensor([0, 0, 0, 1])
    classes = measured(nn.Linear(2, 2), F.cross_entropy, [(torch.randn(4, 2), y)]).targets
    values = measured(nn.Linear(2, 2), F.mse_loss, [(torch.randn(4, 2), torch.arange(8.0).view(4, 2))]).targets
    assert classes is not None and values is not None
    assert classes.shares == (0.75, 0.25)
    assert values.shares == () and values.mean.tolist() == [3.0, 4.0] and (values.low, values.high) == (0, 7)


def test_without_data_and_criterion_there_is_nothing_to_measure():
    problem = Problem(nn.Embedding(3, 2), lambda o, t: o.exp().sum(), [(torch.tensor([0, 1]), torch.tensor([0, 1]))])
    with pytest.raises(UnstuckError, match="no data was seen"):
        measure(problem)
