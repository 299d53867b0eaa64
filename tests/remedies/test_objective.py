"""Remedies of the loss give the loss that the user would have written, to the last bit, and train."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstuck.criterion import prepared
from unstuck.problem import Problem
from unstuck.remedies import objective as swap
from unstuck.remedies.remedy import Remedy
from unstuck.training import Training

N, C = 30, 3
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(1))
CLASSES = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
ONEHOT = F.one_hot(CLASSES, C)
BITS = (X[:, :1] > 0).float()
VALUES = 3 * X[:, :1] - 1

Loss = Callable[[Tensor, Tensor], Tensor]


def problem_of(loss: Loss, target: Tensor, width: int = C) -> Problem:
    torch.manual_seed(0)
    model = nn.Linear(4, width)
    sgd = torch.optim.SGD(model.parameters(), 0.3)
    problem = Problem(model, loss, [(X, target)] * 4, optimizer=sgd)
    return prepared(problem)


def value(problem: Problem) -> Tensor:
    return problem.value(problem.twin(), problem.data[0])


SOFT, SIGMOID = (("softmax", 0),), (("sigmoid", 0),)
CASES: list[tuple[str, Loss, Tensor, int, Callable[[Problem], Remedy], Loss]] = [
    ("mse on one-hot", lambda o, t: F.mse_loss(o.softmax(1), t.float()), ONEHOT, C,
     lambda p: swap.cross_entropy(p, SOFT), lambda o, t: F.cross_entropy(o, CLASSES)),
    ("mse by hand", lambda o, t: (o.softmax(1) - t).pow(2).sum(1).mean(), ONEHOT, C,
     lambda p: swap.cross_entropy(p, SOFT), lambda o, t: F.cross_entropy(o, CLASSES)),
    ("mse by hand, target first", lambda o, t: (t - o.softmax(1)).pow(2).sum(1).mean(), ONEHOT, C,
     lambda p: swap.cross_entropy(p, SOFT), lambda o, t: F.cross_entropy(o, CLASSES)),
    ("mse on 0/1", lambda o, t: F.mse_loss(o.sigmoid(), t), BITS, 1,
     lambda p: swap.cross_entropy(p, SIGMOID), F.binary_cross_entropy_with_logits),
    ("cross-entropy of one output", F.cross_entropy, BITS, 1,
     swap.cross_entropy, F.binary_cross_entropy_with_logits),
    ("bce on logits behind a sigmoid", lambda o, t: F.binary_cross_entropy_with_logits(o.sigmoid(), t), BITS, 1,
     swap.plain_bce, lambda o, t: F.binary_cross_entropy(o.sigmoid(), t)),
    ("bce on values", F.binary_cross_entropy_with_logits, VALUES, 1, swap.squared_error, F.mse_loss),
    ("mse behind a sigmoid", lambda o, t: F.l1_loss(o.sigmoid(), t), VALUES, 1,
     lambda p: swap.squared_error(p, SIGMOID), F.mse_loss),
    ("nll of logits", F.nll_loss, CLASSES, C, lambda p: swap.log_probabilities(p, 1), F.cross_entropy),
    ("nll of logits by name", lambda o, t: F.nll_loss(input=o, target=t), CLASSES, C,
     lambda p: swap.log_probabilities(p, 1), F.cross_entropy),
    ("softmax over samples", lambda o, t: F.nll_loss(o.log_softmax(0), t), CLASSES, C,
     lambda p: swap.softmax_along(("log_softmax", 0), "log_softmax", 1), F.cross_entropy),
    ("relu for sigmoid", lambda o, t: F.mse_loss(o.relu(), t), BITS, 1,
     lambda p: swap.replace_call(("relu", 0), torch.sigmoid, "", "", ""), lambda o, t: F.mse_loss(o.sigmoid(), t)),
    ("shapes", F.mse_loss, VALUES[:, 0], 1,
     lambda p: swap.match_shapes(p, (N, 1), (N,)), lambda o, t: F.mse_loss(o[:, 0], t)),
    ("shapes by hand", lambda o, t: ((t - o) ** 2).mean(), VALUES[:, 0], 1,
     lambda p: swap.match_shapes(p, (N, 1), (N,)), lambda o, t: F.mse_loss(o[:, 0], t)),
    ("minus", lambda o, t: -F.cross_entropy(o, t), CLASSES, C, lambda p: swap.rescale_loss(p, -1.0), F.cross_entropy),
    ("sum", lambda o, t: F.mse_loss(o, t, reduction="sum"), VALUES, 1,
     lambda p: swap.rescale_loss(p, float(N)), F.mse_loss),
    ("weights", lambda o, t: F.cross_entropy(o, t, weight=torch.tensor([9.0, 1.0, 1.0])), CLASSES, C,
     swap.drop_weights, F.cross_entropy),
    ("balanced", F.cross_entropy, CLASSES, C, lambda p: swap.weigh_classes(p, (0.25, 0.5, 0.25)),
     lambda o, t: F.cross_entropy(o, t, weight=torch.tensor([4 / 3, 2 / 3, 4 / 3]))),
    ("positives", F.binary_cross_entropy_with_logits, BITS, 1, lambda p: swap.weigh_classes(p, (0.8, 0.2)),
     lambda o, t: F.binary_cross_entropy_with_logits(o, t, pos_weight=torch.tensor(4.0))),
    ("positives of probabilities", lambda o, t: F.binary_cross_entropy(o.sigmoid(), t), BITS, 1,
     lambda p: swap.weigh_classes(p, (0.8, 0.2)),
     lambda o, t: F.binary_cross_entropy(o.sigmoid(), t, weight=torch.where(t > 0, 2.5, 0.625))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "target", "width", "remedy", "wanted"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_the_remedied_loss_is_the_one_to_write(loss, target, width, remedy, wanted):
    problem = problem_of(loss, target, width)
    changed = remedy(problem).apply(problem)
    torch.testing.assert_close(value(changed), value(problem_of(wanted, target, width)))
    assert changed.data == problem.data and changed.optimizer == problem.optimizer


@pytest.mark.parametrize(
    ("loss", "target", "width", "remedy", "wanted"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_the_remedied_loss_trains_and_is_scored(loss, target, width, remedy, wanted):
    problem = problem_of(loss, target, width)
    run = Training(remedy(problem).apply(problem))
    before = run.score(problem.data).value
    run.advance(40)
    assert run.score(problem.data).value > before
    assert run.score(problem.data).value > 0.6


def test_a_term_beside_the_criterion_stays():
    problem = problem_of(lambda o, t: F.mse_loss(o.softmax(1), t.float()) + 5, ONEHOT)
    changed = swap.cross_entropy(problem, SOFT).apply(problem)
    torch.testing.assert_close(value(changed), value(problem_of(F.cross_entropy, CLASSES)) + 5)


def test_the_line_to_write_holds_the_figures():
    problem = problem_of(F.cross_entropy, CLASSES)
    assert "0.667" in swap.weigh_classes(problem, (0.25, 0.5, 0.25)).code
    assert "30 times" in swap.rescale_loss(problem, 30.0).text


@pytest.mark.parametrize("axis", [1, 2])
def test_cross_entropy_of_steps_is_that_of_the_steps_in_a_row(axis):
    logits, labels = torch.randn(5, 4, C), torch.arange(20).view(5, 4) % C
    labels[0] = 0
    onehot = F.one_hot(labels, C)
    found = swap.class_cross_entropy(logits.movedim(2, axis), onehot.movedim(2, axis))
    torch.testing.assert_close(found, F.cross_entropy(logits.flatten(0, 1), labels.flatten()))
    torch.testing.assert_close(swap.class_cross_entropy(logits.movedim(2, 1), labels), found)


def test_squared_error_on_one_hot_steps_becomes_their_cross_entropy():
    labels = torch.stack([CLASSES, CLASSES.roll(1)], 1)
    steps = lambda o: o.view(N, 2, C)  # noqa: E731
    problem = problem_of(lambda o, t: F.mse_loss(steps(o).softmax(-1), t), F.one_hot(labels, C).float(), 2 * C)
    wanted = problem_of(lambda o, t: F.cross_entropy(steps(o).flatten(0, 1), t.flatten()), labels, 2 * C)
    torch.testing.assert_close(value(swap.cross_entropy(problem, SOFT).apply(problem)), value(wanted))
