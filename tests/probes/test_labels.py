"""Confident learning on labels of which the truth is known."""

import numpy as np
import pytest
import torch
from tests.small import clouds, mlp, written
from torch import nn

from unstuck.errors import NotApplicable, UnstuckError
from unstuck.probes.labels import doubts, measure, spread


def test_doubts_are_the_labels_that_a_sure_prediction_contradicts():
    odds = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.95, 0.05]])
    assert doubts(odds, np.array([0, 0, 1, 1, 1])).tolist() == [False, False, False, False, True]
    # Class 0 where it is given has 0.9 on average: a prediction of 0.6 contradicts nothing.
    assert not doubts(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1])).any()


def test_spread_is_one_for_even_labels_and_nothing_for_one_confusion():
    labels = np.arange(400) % 4
    predicted, given = np.zeros(90, int), np.arange(90) % 3 + 1
    assert spread(predicted, given, labels) == pytest.approx(1)
    assert spread(predicted, np.ones(90, int), labels) == 0
    assert spread(np.zeros(9, int), np.ones(9, int), np.arange(10) % 2) == 0  # two classes: nothing to spread over


def test_clean_labels_are_believed_without_further_ado():
    found = measure(written(mlp(), *clouds()))
    assert found.noise == 0 and found.agreement > 0.9


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_noise_is_measured_within_a_tenth(share):
    x, y = clouds(1200, classes=5)
    wrong = torch.rand(len(y)) < share
    noisy = torch.where(wrong, torch.randint(0, 5, (len(y),)), y)
    found = measure(written(mlp(classes=5), x, noisy))
    truly = float((noisy[:900] != y[:900]).float().mean())
    assert abs(found.noise - truly) < 0.1 and found.spread > 0.85
    assert found.sure < 1.55 * found.agreement and found.own < 1 - truly / 2


def test_regression_and_few_rows_are_refused():
    x, y = clouds(64)
    with pytest.raises(NotApplicable, match="class"):
        measure(written(nn.Linear(24, 1), x, x[:, :1], nn.MSELoss()))
    with pytest.raises(UnstuckError, match="too few"):
        measure(written(mlp(), x, y))
