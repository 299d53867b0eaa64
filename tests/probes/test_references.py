"""References: closed forms, and that they know what can be known and no more."""

import math
import time

import numpy as np
import pytest
import torch
from tests.small import clouds, mlp, table, written
from torch import nn

from unstuck.errors import UnstuckError
from unstuck.probes.references import Reference, References, _plain, accuracy, constant, measure, r_squared


def test_constant_prediction_is_the_commonest_class_and_the_mean():
    x = np.zeros((4, 1))
    assert constant(table(x, [0, 0, 1, 0]), table(x, [0, 1, 1, 1])) == 0.25
    values = np.array([[1.0], [3.0]]), np.array([[2.0], [4.0]])
    held = table(x[:2], values[1], task="regression")
    # predicts 2 where the truth is 2 and 4: mean squared error 2, variance 1
    assert constant(table(x[:2], values[0], task="regression"), held) == pytest.approx(1 - 2 / 1)


def test_accuracy_averages_recalls_where_the_table_is_balanced():
    x, y = np.zeros((4, 1)), [0, 0, 0, 1]
    assert accuracy(np.zeros(4), table(x, y)) == 0.75
    assert accuracy(np.zeros(4), table(x, y, balanced=True)) == 0.5


def test_r_squared_is_one_for_the_truth_and_zero_for_column_means():
    y = np.random.default_rng(0).normal(size=(50, 3))
    assert r_squared(y, y) == 1 and r_squared(np.tile(y.mean(0), (50, 1)), y) == pytest.approx(0)
    assert math.isnan(r_squared(np.ones((5, 1)), np.ones((5, 1))))


def test_learnable_labels_are_learnt_and_shuffled_ones_are_not():
    x, y = clouds(480)
    found = measure(written(mlp(), x, y))
    assert found.informative and found.best.held_out > 0.9 and found.structure > 0.5 and math.isnan(found.own)
    assert math.isfinite(found.best.loss) and found.best.loss < math.log(4)
    shuffled = measure(written(mlp(), x, y[torch.randperm(len(y))]), budget_s=1)
    assert shuffled.empty and not found.empty and abs(shuffled.own - shuffled.chance) < 0.1


def test_the_network_itself_speaks_where_references_know_nothing(monkeypatch):
    x, y = clouds()
    monkeypatch.setattr("unstuck.probes.references.linear", lambda t: Majority())
    monkeypatch.setattr("unstuck.probes.references.network", lambda t: Majority())
    found = measure(written(mlp(), x, y))
    assert found.best.held_out <= found.chance and found.own > 0.9 and found.informative


class Majority:
    classes_ = (0, 1, 2, 3)

    def fit(self, x, y):
        return self

    def predict(self, x):
        return np.zeros(len(x))

    def predict_proba(self, x):
        return np.full((len(x), 4), 0.25)


def test_linear_regression_explains_a_linear_target():
    x = clouds()[0]
    found = measure(written(nn.Linear(24, 1), x, x[:, :1] - x[:, 1:2], nn.MSELoss()))
    assert found.metric == "R²" and found.best.held_out > 0.95 and found.chance <= 0


def test_few_rows_still_tell_a_real_relation_from_none():
    """48 held-out rows, R² of 0.5: a correlation of 0.7 is eight standard errors away from none."""
    torch.manual_seed(3)
    x = torch.randn(192, 8)
    y = x[:, :1] + torch.randn(192, 1)
    assert measure(written(nn.Linear(8, 1), x, y, nn.MSELoss())).informative
    assert not measure(written(nn.Linear(8, 1), x, torch.randn(192, 1), nn.MSELoss()), budget_s=1).informative


def test_principal_components_bound_an_autoencoder():
    x = torch.randn(320, 3) @ torch.randn(3, 12)
    full = measure(written(nn.Sequential(nn.Linear(12, 3), nn.Linear(3, 12)), x, x, nn.MSELoss()))
    half = measure(written(nn.Sequential(nn.Linear(12, 1), nn.Linear(1, 12)), x, x, nn.MSELoss()))
    assert full.kind == "autoencoder" and full.best.held_out == pytest.approx(1, abs=1e-6)
    assert half.best.name == "PCA with 1 components" and half.best.held_out < 0.8


def test_ngram_tables_know_as_much_of_a_text_as_their_order():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(6, 4), nn.Linear(4, 6)

        def forward(self, ids):
            return self.out(self.embed(ids)).transpose(1, 2)

    # The next token is the sum of the last two: a bigram table cannot know it, a trigram table does.
    ids = torch.randint(0, 6, (48, 40))
    for t in range(2, 40):
        ids[:, t] = (ids[:, t - 1] + ids[:, t - 2]) % 6
    found = measure(written(Tagger(), ids[:, :-1], ids[:, 1:], size=4))
    scores = {m.name: m.held_out for m in found.models}
    assert scores["bigram table"] < 0.5 < 0.9 < scores["trigram table"] and found.fair.name == "trigram table"


def test_too_few_rows_are_refused():
    with pytest.raises(UnstuckError, match="too few"):
        measure(written(mlp(), *clouds(24), size=8))


def test_a_handful_of_held_out_rows_leaves_open_whether_there_is_something_to_know():
    x, y = clouds(80)
    found = measure(written(mlp(), x, y[torch.randperm(80)], size=16), budget_s=1)
    assert found.held_rows == 16 and not found.informative and not found.empty


@pytest.mark.parametrize("mixing", [torch.randn(5, 200), torch.eye(5).repeat(1, 40)], ids=["mixed", "repeated"])
def test_many_columns_of_few_factors_are_read_as_the_factors_are(mixing):
    factors = torch.randn(480, 5)
    x, y = factors @ mixing, factors[:, :1] + 0.3 * torch.randn(480, 1)
    found = measure(written(nn.Linear(200, 1), x, y, nn.MSELoss()))
    assert found.models[0].name == "linear model"
    for model in found.models:  # of the variance 0.09 / 1.09 is noise
        assert (model.train, model.held_out) == pytest.approx((1 / 1.09, 1 / 1.09), abs=0.05)


@pytest.mark.parametrize(
    ("held_out", "own", "empty"),
    [(0.0, -0.1, True), (-0.3, -0.1, True), (-0.6, -0.1, False), (-40.0, -0.1, False), (0.5, float("nan"), False),
     (0.0, float("nan"), False), (0.0, 0.3, False)],
)  # fmt: skip
def test_a_reference_that_was_not_fitted_cannot_say_that_there_is_nothing(held_out, own, empty):
    models = (Reference("linear model", 0.9, held_out), Reference("small neural network", 0.9, held_out - 1))
    assert References("R²", "rows", models, 0.0, 0.01, 800, 200, 0.5, 0.0, own).empty == empty


def test_few_columns_are_read_by_their_nearest_rows():
    generator = np.random.default_rng(0)
    at = generator.uniform(-1, 1, (1500, 2))
    height = np.sin(9 * at[:, :1]) * np.cos(9 * at[:, 1:])
    train, held = (table(at[part], height[part], task="regression") for part in (slice(1000), slice(1000, None)))
    found = _plain(train, held, time.perf_counter() + 20)
    assert [m.name for m in found][:2] == ["linear model", "mean of the nearest neighbours"]
    assert found[0].held_out < 0.1 < 0.9 < found[1].held_out
