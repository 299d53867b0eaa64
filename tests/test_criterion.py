"""The criterion is found by what it does, and scores agree with scikit-learn's."""


import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, r2_score
from torch import nn

from unstuck.criterion import find, hit, hot_axis, hot_labels, prepared, score
from unstuck.problem import Criterion, Problem
from unstuck.trace import trace

CLASSES = torch.tensor([0, 2, 1, 1, 0, 2])
ONEHOT = F.one_hot(CLASSES, 3).float()
VALUES = torch.randn(6, generator=torch.Generator().manual_seed(3))
BITS = torch.tensor([0.0, 1, 1, 0, 1, 0])
TOKENS = torch.tensor([[0, 0, 2], [1, 1, 2]])
STEPS = F.one_hot(TOKENS, 3).float()

LOSSES = [
    ("cross_entropy", "classes", 3, CLASSES, F.cross_entropy),
    ("cross_entropy", "onehot", 3, ONEHOT, F.cross_entropy),
    ("nll", "classes", 3, CLASSES, lambda o, t: F.nll_loss(F.log_softmax(o, 1), t)),
    ("nll", "classes", 3, CLASSES, lambda o, t: -F.log_softmax(o, 1)[torch.arange(len(t)), t].mean()),
    ("nll", "classes", 3, CLASSES, lambda o, t: -F.log_softmax(o, 1).gather(1, t[:, None]).mean()),
    ("nll_probabilities", "classes", 3, CLASSES, lambda o, t: -F.softmax(o, 1)[torch.arange(len(t)), t].log().mean()),
    ("bce_logits", "binary", 1, BITS[:, None], F.binary_cross_entropy_with_logits),
    ("bce", "binary", 1, BITS[:, None], lambda o, t: F.binary_cross_entropy(o.sigmoid(), t)),
    ("mse", "regression", 1, VALUES[:, None], F.mse_loss),
    ("mse", "onehot", 3, ONEHOT, lambda o, t: F.mse_loss(o.softmax(1), t)),
    ("mse", "onehot", 3, STEPS, lambda o, t: F.mse_loss(o.view(2, 3, 3).softmax(-1), t)),
    ("mse", "onehot", 3, STEPS.mT, lambda o, t: F.mse_loss(o.view(2, 3, 3).softmax(1), t)),
    ("mse", "onehot", 3, STEPS, lambda o, t: (t - o.view(2, 3, 3).softmax(-1)).square().sum(-1).mean()),
    ("mse", "regression", 1, VALUES, lambda o, t: ((o.squeeze(1) - t) ** 2).mean()),
    ("mse", "regression", 1, VALUES, lambda o, t: (t - o.squeeze(1)).square().mean()),
    ("l1", "regression", 1, VALUES, lambda o, t: (o.squeeze(1) - t).abs().mean()),
    ("smooth_l1", "regression", 1, VALUES[:, None], F.smooth_l1_loss),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "task", "width", "target", "loss"), LOSSES)
def test_the_loss_is_named(kind, task, width, target, loss):
    problem = Problem(nn.Linear(4, width), loss, [(torch.randn(6, 4), target)])
    found = find(trace(problem, problem.twin(), problem.data[0]))
    assert (found.kind, found.task) == (kind, task)


@pytest.mark.parametrize(("kind", "task", "width", "target", "loss"), LOSSES)
def test_output_and_target_are_told_apart(kind, task, width, target, loss):
    problem = Problem(nn.Linear(4, width), loss, [(torch.randn(6, 4), target)])
    problem = prepared(problem)
    result = problem.evaluate(problem.twin(), problem.data[0])
    assert result.output.requires_grad
    assert torch.equal(result.target.flatten(), target.flatten())


def test_a_loss_of_no_known_form_is_unknown():
    problem = Problem(nn.Linear(4, 2), lambda o, t: o.exp().mean(), [(torch.randn(6, 4), VALUES)])
    assert find(trace(problem, problem.twin(), problem.data[0])).kind == "unknown"


def test_accuracy_is_scikit_learns():
    problem = Problem(nn.Linear(4, 3), F.cross_entropy, [(torch.randn(6, 4), CLASSES) for _ in range(3)])
    problem = prepared(problem)
    model = problem.twin()
    with torch.no_grad():
        guesses = np.concatenate([model(x).argmax(1).numpy() for x, _ in problem.data])
    wanted = accuracy_score(np.tile(CLASSES.numpy(), len(problem.data)), guesses)
    assert score(problem, model, problem.data).value == pytest.approx(wanted)


def test_r2_is_scikit_learns_with_a_mean_for_each_column():
    targets = torch.randn(6, 2) + torch.tensor([0.0, 10.0])
    problem = Problem(nn.Linear(4, 2), F.mse_loss, [(torch.randn(6, 4), targets)])
    problem = prepared(problem)
    model = problem.twin()
    x, y = problem.data[0]
    with torch.no_grad():
        output = model(x)
    wanted = r2_score(y.numpy(), output.numpy(), multioutput="variance_weighted")
    assert score(problem, model, problem.data).value == pytest.approx(wanted, rel=1e-5)


def test_ignored_targets_do_not_count():
    right = hit(Criterion("cross_entropy", "classes"), torch.eye(3), torch.tensor([0, -100, 1]))
    assert right.tolist() == [True, False]


@pytest.mark.parametrize(
    ("target", "axis"),
    [
        (ONEHOT, 1),
        (STEPS, 2),
        (STEPS.mT, 1),
        (0.9 * ONEHOT + 0.1 / 3, 1),
        (0.7 * STEPS + 0.1, 2),
        (F.one_hot(TOKENS, 3), 2),
        (VALUES, None),
        (VALUES.view(2, 3), None),
        (torch.ones(6, 1), None),
        (torch.ones(6, 2), None),
        (STEPS.flip(0) * BITS.view(2, 3, 1), None),
    ],
)
def test_the_classes_are_where_each_target_sums_to_one(target, axis):
    assert hot_axis(target) == axis


@pytest.mark.parametrize(("target", "labels"), [(ONEHOT, CLASSES), (STEPS, TOKENS), (STEPS.mT, TOKENS)])
def test_labels_of_one_hot_targets_are_read_along_the_classes(target, labels):
    assert torch.equal(hot_labels(target, target), labels)
    assert torch.equal(hot_labels(0.7 * target + 0.1, target), labels)


@pytest.mark.parametrize(("wrong", "value"), [(0, 1.0), (2, 2 / 3)])
def test_one_hot_steps_are_scored_one_by_one(wrong, value):
    """A network that says at every step what it is given; of some steps the target is another class."""
    inputs = STEPS.clone()
    inputs.view(6, 3)[:wrong] = inputs.view(6, 3)[:wrong].roll(1, -1)
    problem = Problem(nn.Linear(3, 3), lambda o, t: F.mse_loss((50 * o).softmax(-1), t), [(inputs, STEPS)] * 2)
    problem = prepared(problem)
    model = problem.twin()
    with torch.no_grad():
        model.weight.copy_(torch.eye(3)), model.bias.zero_()
    found = score(problem, model, problem.data)
    assert problem.criterion.task == "onehot"
    assert (found.metric, found.value) == ("accuracy", pytest.approx(value))
